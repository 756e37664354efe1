"""A part of a video has the samples, the times and the sound of its frames, and a timecode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.media.parts import PART_SUFFIX, write_part
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.sound import SoundReader
from gateway.studio.turnover import timecode_of
from tests.unit.media.made_footage import Clip, make_clip

TICKS = 1001
NTSC = Clip(
    codec="libx264",
    pts=tuple(range(0, 90 * TICKS, TICKS)),
    time_base=Fraction(1, 30000),
    rate=Fraction(30000, 1001),
    last_duration=TICKS,
    sound_rate=48000,
    sound_codec="pcm_s16le",
    timecode="01:00:00;00",
)


def samples(path: Path, origin: Fraction | None = None, *, seek: bool = False) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in SoundReader(path, origin=origin, seek=seek)])


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
def test_a_part_has_the_samples_of_its_frames(pixel_format: str, tmp_path: Path) -> None:
    clip = Clip(**{**{name: getattr(NTSC, name) for name in NTSC.__dataclass_fields__}, "pixel_format": pixel_format})
    source = probe(make_clip(tmp_path / "source.mov", clip))
    write_part(source, range(40, 70), tmp_path / f"part{PART_SUFFIX}", timecode="01:00:01;10")
    part = probe(tmp_path / f"part{PART_SUFFIX}")
    assert (part.video.num_frames, part.video.constant_rate, int(part.video.pts[0])) == (30, Fraction(30000, 1001), 0)
    assert timecode_of(part) == "01:00:01;10"
    with VideoReader(source) as reader:
        wanted = [[plane.copy() for plane in frame.planes] for frame in reader.frames(40, 70)]
    with VideoReader(part) as reader:
        for frame, planes in zip(reader, wanted, strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(frame.planes, planes, strict=True))
    origin = int(source.video.pts[40]) * source.video.time_base
    sound = samples(source.path, origin)[: round(part.video.duration * 48000)]
    assert np.abs(samples(part.path) - sound).max() < 2**-22


def test_pcm_that_is_sought_has_the_same_samples(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mov", NTSC)
    for origin in (Fraction(0), Fraction(1001, 30000) * 47, Fraction(5, 2)):
        assert np.array_equal(samples(source, origin), samples(source, origin, seek=True))
