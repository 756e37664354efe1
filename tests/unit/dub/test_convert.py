"""Messages of the contracts that only the gateway makes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from gateway.dub.convert import timeline_of
from gateway.media.probe import probe
from services.common.wire.convert import timeline_from_proto
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip


@pytest.mark.parametrize("later", [Fraction(0), Fraction(1, 25), Fraction(-3, 100), Fraction(1, 7)])
def test_times_are_moved_exactly(later: Fraction, tmp_path: Path) -> None:
    """Frame times count from the first frame, and no rounding moves them."""
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(pts=VARIABLE_PTS, time_base=Fraction(1, 1000))))
    found = timeline_from_proto(timeline_of(info, later=later), "timeline")
    first = int(info.video.pts[0])
    wanted = [(int(pts) - first) * info.video.time_base + later for pts in info.video.pts]
    assert [found.seconds(frame) for frame in range(info.video.num_frames)] == wanted
