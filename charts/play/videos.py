"""Videos of real footage: by the client package through a gateway, without any server, and as shots of a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from charts.play.pods import Log
from dubstage.client import connect
from dubstage.client import gateway as dubbing
from dubstage.client.names import step_name
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.provenance.binding import media_sha256
from gateway.provenance.credential import KEY_FILE

SHOT_S: Final = 3.0
"""Length of a shot, seconds."""
MANIFEST: Final = "shots.jsonl"
CHECKOUT: Final = Path(__file__).parents[2]


def dub_by_api(address: str, media: Path, footage: str, speech: str, method: str, *, personalize: bool, log: Log) -> Path:
    """Dub a clip of the media folder, and return the video.

    Args:
        address: HOST:PORT of the gateway.
        media: the media folder, as this machine sees it.
        footage: file of the media folder.
        speech: file of the media folder.
        personalize: whether the networks are adapted to the person.
        log: gets the steps, and the digest.

    Raises:
        DubstageCallError: the dub failed.
    """
    begun, seen = time.monotonic(), set[str]()

    def progress(state: pb.OperationProgress) -> None:
        step = step_name(state.step)
        if state.step and step not in seen:
            seen.add(step)
            log(f"dub: {step}")

    with connect(address) as gateway:
        dub = dubbing.dub(gateway, footage=footage, speech=speech, output="dub.mp4", method=method, personalize=personalize)
        result = dub.wait(timeout_s=1800, on_progress=progress)
    footage_file = media / "dub.mp4"
    seconds = time.monotonic() - begun
    log(f"dub: {result.num_dubbed} of {result.num_frames} frames in {seconds:.1f} s, media sha256 {media_sha256(footage_file)}")
    return footage_file


def write_shots(footage: Path, speech: Path, count: int, method: str, folder: Path) -> list[str]:
    """Write shots and their manifest to a folder, and return the names of the videos that the manifest asks for.

    The shots begin at equal distances, and overlap if the footage is short.

    Args:
        footage: video of a person.
        speech: what the person shall say in every shot; a file of the folder.
        count: number of shots, at least 1.
        method: method that dubs them.
        folder: gets the files; paths in the manifest are relative to the folder.

    Raises:
        ValueError: the footage is shorter than a shot.
    """
    with av.open(str(footage)) as footage_file:
        seconds = float(footage_file.duration or 0) / av.time_base
    if seconds < SHOT_S:
        raise ValueError(f"{footage} is {seconds:.1f} s long, and a shot has {SHOT_S:g} s: give longer footage")
    rows: list[dict[str, object]] = [{"defaults": {"speech": speech.name, "method": method, "personalize": False}}]
    videos = []
    for number in range(count):
        name, begin_s = f"shot{number + 1}", (seconds - SHOT_S) * number / max(1, count - 1)
        _cut(footage, folder / f"{name}.mp4", begin_s)
        videos.append(f"batch/{name}.mp4")
        rows.append({"id": name, "footage": f"{name}.mp4", "output": videos[-1]})
    (folder / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return videos


def _cut(footage: Path, target: Path, begin_s: float) -> None:
    """Write the pictures of a span, coded anew."""
    with av.open(str(footage)) as footage_file, av.open(str(target), "w") as writer:
        video = footage_file.streams.video[0]
        rate = video.average_rate or Fraction(25)
        pictures = writer.add_stream("libx264", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = video.width, video.height, "yuv420p"
        pictures.options = {"crf": "14", "threads": "1"}
        for frame in footage_file.decode(video):
            if frame.time is not None and begin_s <= frame.time < begin_s + SHOT_S:
                frame.time_base, frame.pts = 1 / rate, round((frame.time - begin_s) * rate)
                writer.mux(pictures.encode(frame))
        writer.mux(pictures.encode(None))


class LocalInstallation:
    """An installation in a folder, whose commands compute by themselves.

    Args:
        folder: gets the data folder and the videos.
        key: content of the file of the gateways' key. Videos carry a watermark of the key that they are signed with, so two
            installations with keys of their own make different videos.
        settings: further settings, by the names of their variables.
        log: gets the times and digests.
    """

    def __init__(self, folder: Path, key: str, settings: Mapping[str, str], log: Log) -> None:
        self.media = folder / "media"
        self._log = log
        data = folder / "data"
        for path in (folder, self.media, data):
            path.mkdir(mode=0o700, exist_ok=True)
        (data / KEY_FILE).write_text(key, encoding="ascii")
        (data / KEY_FILE).chmod(0o600)
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("DUBSTAGE_")}
        self._environment |= {"DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts"), **settings}

    def dub(self, footage: Path, speech: Path, method: str, *, personalize: bool) -> str:
        """Make the video, and return its digest.

        Raises:
            subprocess.CalledProcessError: the command failed; its message is in `stderr`.
        """
        footage_file = self.media / "video.mp4"
        chosen = ["--method", method, *([] if personalize else ["--no-personalize"])]
        seconds = self._run("dub", str(footage), "--audio", str(speech), "-o", str(footage_file), *chosen)
        digest = media_sha256(footage_file)
        self._log(f"in one process: {seconds:.1f} s, media sha256 {digest}")
        return digest

    def batch(self, videos: Sequence[str]) -> dict[str, str]:
        """Dub the shots whose manifest is in the folder `media`, one after the other, and return the digests of their videos.

        Raises:
            subprocess.CalledProcessError: a shot failed; the message is in `stderr`.
        """
        seconds = self._run("batch", "submit", str(self.media / MANIFEST), "--workers", "1")
        self._log(f"in one process: the {len(videos)} shots in {seconds:.1f} s")
        return {footage_file: media_sha256(self.media / footage_file) for footage_file in videos}

    def _run(self, *arguments: str) -> float:
        begun = time.monotonic()
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        subprocess.run(command, check=True, env=self._environment, cwd=CHECKOUT, capture_output=True, text=True)
        return time.monotonic() - begun
