"""Tests of scenes in H.264 and HEVC: a changed line encodes the segments that it touches alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.render import segments
from gateway.dub.render.windows import WINDOW_FRAMES
from gateway.dub.request.dub_request import DubLine, DubRequest
from gateway.dub.sound.timecode import parse_time
from gateway.media.label import Label
from gateway.media.sound import SoundReader
from gateway.provenance.installation import open_sealer
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from services.common.texts import Field
from tests.system.dubbing import SPEECH, UNPERSONALIZED, PersonClip, decoded, side_by_side, write_wav

SECONDS = 5.0
NUM_FRAMES = 125


@dataclass(frozen=True)
class Coded:
    """A packet: bytes, times and whether it is a key frame."""

    data: bytes
    pts: int
    dts: int
    key: bool


def packets(video: Path) -> list[Coded]:
    with av.open(str(video)) as container:
        found = [packet for packet in container.demux(video=0) if packet.size]
        return [Coded(bytes(packet), packet.pts or 0, packet.dts or 0, packet.is_keyframe) for packet in found]


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of one window in place of three, so that a short video has several."""
    monkeypatch.setattr(segments, "SEGMENT_FRAMES", WINDOW_FRAMES)


@pytest.fixture(scope="module")
def footage(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    people = [PersonClip(clips.path(name)) for name in ("people/dev_4.mp4", "people/dev_6.mp4")]
    return side_by_side(people, tmp_path_factory.mktemp("video") / "two.mkv", SECONDS, voices=[0, 1], side=288)


@pytest.fixture(scope="module")
def speeches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two speeches of 0.8 s."""
    folder = tmp_path_factory.mktemp("speeches")
    samples = np.concatenate([chunk.samples for chunk in SoundReader(SPEECH)])
    rate = SoundReader(SPEECH).info.sample_rate_hz
    return [
        write_wav(folder / f"{number}.wav", samples[round(begin * rate) : round((begin + 0.8) * rate)].astype(np.float64), rate)
        for number, begin in enumerate((0.3, 1.4))
    ]


def request(footage: Path, output: Path, spoken: Sequence[tuple[float, Path, int]], codec: str) -> DubRequest:
    scene = DubRequest(footage=footage, speech=None, output=output, method="dubstage", codec=codec, enrol=UNPERSONALIZED)
    lines = (
        DubLine(
            name=Field(f"lines[{number}]"),
            start=parse_time(f"{start:.3f}"),
            dub=replace(scene, speech=speech, face=FaceChoice("id", face)),
        )
        for number, (start, speech, face) in enumerate(spoken)
    )
    return replace(scene, lines=tuple(lines))


@pytest.mark.long
@pytest.mark.parametrize(("ending", "codec"), [("mp4", "h264"), pytest.param("mov", "hevc", marks=pytest.mark.long)])
def test_changed_line_encodes_its_segments(footage, speeches, dubber, tmp_path, ending, codec) -> None:
    """Untouched segments keep their packets. The video is that of a new dub, to the byte of every packet."""
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    sealer = open_sealer(settings)

    def run(name: str, jobs: str, *spoken: tuple[float, Path, int], label: Label | None = None) -> tuple[DubOutcome, list[Coded]]:
        output = tmp_path / f"{name}.{ending}"
        asked = replace(request(footage, output, spoken, codec), label=label)
        job = DubJob(asked, dubber.host.stages, dubber.store, tmp_path / jobs, sealer=sealer)
        return dubber.host.run(job.run(lambda *_: None)), packets(output)

    one, other = speeches
    lines = (0.2, one, 0), (1.4, one, 1), (4.0, one, 0)
    before, first = run("first", "jobs", *lines)
    after, again = run("again", "jobs", lines[0], (1.6, other, 1), lines[2])
    _, whole = run("whole", "elsewhere", lines[0], (1.6, other, 1), lines[2])
    assert len(first) == len(again) == NUM_FRAMES
    assert again == whole
    same = [old.data == new.data for old, new in zip(first, again, strict=True)]
    touched = range(WINDOW_FRAMES, 2 * WINDOW_FRAMES)  # the line had frames 35 to 54, and has 40 to 59
    assert all(same[: touched.start])
    assert all(same[touched.stop :])
    assert not all(same)
    assert [packet.key for packet in again[::WINDOW_FRAMES]] == [True] * 4
    assert sorted(packet.pts for packet in again) == [packet.pts for packet in sorted(first, key=lambda packet: packet.pts)]
    assert all(packet.dts <= packet.pts for packet in again)
    assert np.all(np.diff([packet.dts for packet in again]) > 0)
    assert str(before.watermark.payload) == str(after.watermark.payload) != ""
    assert after.facts.mask_area_px[5:25].all()
    assert len(list(decoded(tmp_path / f"again.{ending}"))) == NUM_FRAMES
    assert after.times.frames == NUM_FRAMES

    label = Label("AI dubbed")
    _, labelled = run("labelled", "jobs", *lines, label=label)
    assert labelled == run("anew", "labelled", *lines, label=label)[1] != first
