"""A face that leaves and comes back, something before a mouth, many shots: what is not a free mouth stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.request import DubRequest
from gateway.media.probe import probe
from tests.system.dubbing import SPEECH, Dubber, cut, decoded, frame_seconds


@pytest.mark.long
def test_returning_face_fades_in(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The face is out of the picture from 5.0 to 6.5 s, which is 1.8 to 3.3 s of the cut."""
    footage, output = cut(clips.path("derived/d05_face_leaves_frame.mp4"), tmp_path / "footage.mp4", 2.4, 9.2), tmp_path / "dub.mp4"
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=output, method="ugc", codec="ffv1"))
    plan = dub.outcome.plan
    rendered = plan.rendered()
    gone = np.flatnonzero(plan.reason == common_pb2.FRAME_REASON_NO_FACE)
    assert len(gone) > 40
    assert set(dub.faces["face_id"]) == {0}
    before, after = np.flatnonzero(rendered[: gone[0]])[-1], gone[-1] + np.flatnonzero(rendered[gone[-1] :])[0]
    assert before > 20
    assert len(rendered) - after > 25
    np.testing.assert_allclose(plan.strength[[before - 2, before - 1, before]], [1, 2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(plan.strength[[after, after + 1, after + 2]], [1 / 3, 2 / 3, 1], atol=1e-6)

    assert frame_seconds(output) == frame_seconds(footage)
    for index, (old, new) in enumerate(zip(decoded(footage), decoded(output), strict=True)):
        if not rendered[index]:
            assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)), index


def test_occluder_is_never_painted_over(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The patch lies over the mouth at 30 to 74 of the clip, and beside it before and after; it is one flat colour."""
    footage, output = cut(clips.path("derived/d07_moving_occluder.mp4"), tmp_path / "footage.mp4", 0, 3.6), tmp_path / "dub.mp4"
    clear = clips.path("video/vr_face5.mp4")
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=output, method="ugc", codec="ffv1"))
    covered = outcome.plan.reason == common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    assert 40 <= covered.sum() <= 50
    for index, (free, old, new) in enumerate(zip(decoded(clear), decoded(footage), decoded(output), strict=False)):
        if covered[index]:
            assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)), index
            continue
        patch = np.abs(old[0].astype(int) - free[0].astype(int)) > 40
        # The neck moves with the jaw, and reads across the edge of a patch that touches the neck.
        patch = cv2.erode(patch.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        np.testing.assert_array_equal(old[0][patch], new[0][patch], err_msg=str(index))


def test_stage_performance_with_cuts(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """One man's mouth is free for 23 frames in all, less than the second that a speaking style takes."""
    footage, output = clips.path("video/fr_short_hamilton_clip.mp4"), tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=output, method="ugc", codec="ffv1"))
    assert probe(output).video.num_frames == probe(footage).video.num_frames == outcome.plan.num_frames == 275
    assert outcome.undubbed.startswith("none of the 275 frames is dubbed")
    assert "at least 25 are needed" in outcome.undubbed
    counts = outcome.plan.counts()
    assert {"NO_FACE", "TARGET_NOT_PRESENT", "PROFILE_VIEW", "OCCLUDED_MOUTH", "LOW_CONFIDENCE"} == set(counts)
    assert not outcome.facts.mask_area_px.any()
    assert frame_seconds(output) == frame_seconds(footage)
    for old, new in zip(decoded(footage), decoded(output), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
