"""Frames of the footage that a video of another length shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from dubstage.gateway.v1 import dub_pb2
from gateway.dub.choices import FITS, Fit
from gateway.dub.request.spec_text import names_of, spec_from
from gateway.dub.sound.fit import cuts_of, shown_frames
from gateway.media.probe import probe
from services.common.errors import InvalidRequestError
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip

SHOWN: dict[Fit, tuple[list[int], list[int]]] = {
    "pad": ([0, 1], [0, 1, 2, 3, 3, 3, 3, 3, 3]),
    "loop": ([0, 1], [0, 1, 2, 3, 0, 1, 2, 3, 0]),
    "bounce": ([0, 1], [0, 1, 2, 3, 2, 1, 0, 1, 2]),
    "slow": ([0, 2], [0, 0, 0, 1, 1, 2, 2, 3, 3]),
}
"""Of footage of four frames, a video of two and of nine frames."""


@pytest.mark.parametrize("fit", SHOWN)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_frames_are_counted(fit: Fit, rate: Fraction, tmp_path: Path) -> None:
    """At a constant rate, no rounding of times moves a frame."""
    times = tuple(round(1000 * n / rate) for n in range(4))
    clip = Clip(pts=times, time_base=Fraction(1, 1000), rate=rate, last_duration=times[1])
    video = probe(make_clip(tmp_path / "clip.mkv", clip)).video
    assert video.constant_rate is not None
    for shown in SHOWN[fit]:
        assert shown_frames(fit, video, len(shown)) == shown


def test_varying_rate_by_time(tmp_path: Path) -> None:
    """Footage with a varying rate shows its frames as long as before: a pause stays a pause."""
    clip = Clip(pts=VARIABLE_PTS, time_base=Fraction(1, 15360), last_duration=700)
    video = probe(make_clip(tmp_path / "clip.mp4", clip)).video
    rate = video.average_rate.limit_denominator(1001)
    for fit in ("pad", "loop", "bounce"):
        shown = shown_frames(fit, video, 30)
        times = [n / rate for n in range(len(shown))]
        begins = [Fraction(pts - VARIABLE_PTS[0], 15360) for pts in (*VARIABLE_PTS, VARIABLE_PTS[-1] + 700)]
        assert all(begins[frame] <= time < begins[frame + 1] for frame, time in zip(shown, times, strict=True) if time < begins[-1])
    assert shown_frames("pad", video, 30)[-10:] == [11] * 10


def test_one_frame(tmp_path: Path) -> None:
    video = probe(make_clip(tmp_path / "clip.mp4", Clip(pts=(0,)))).video
    for fit in SHOWN:
        assert shown_frames(fit, video, 3) == [0, 0, 0]


def test_shots_begin_where_footage_begins_anew() -> None:
    assert cuts_of([0, 1, 2, 3, 0, 1, 2, 3], [2]) == [2, 4, 6]
    assert cuts_of([0, 1, 2, 3, 2, 1, 0, 1], [2]) == [2, 5]
    assert cuts_of([0, 0, 1, 1], []) == []


def test_names() -> None:
    """The contract has the fits of commands, and commands refuse others with those there are."""
    assert tuple(names_of(dub_pb2.Fit.DESCRIPTOR).values()) == ("", *FITS)
    with pytest.raises(InvalidRequestError, match="fit takes one of cut, pad, loop, bounce, retime, slow, not") as caught:
        spec_from({"fit": "stretch"})
    assert caught.value.field == "fit"
