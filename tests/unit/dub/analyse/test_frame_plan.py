"""Tests of the plan of every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.analyse.frame_plan import joined_plan, make_plan, silent_frames, strength_of
from gateway.dub.state.records import MOTION_RECORD, RecordFile
from services.common.array_types import Float32
from services.common.face.landmarks import mouth_opening
from services.common.wire.mouth_curves import SpeakingMotion
from tests.unit.motion.synthesised import mouths, rest_mouth

DUBBED: int = common_pb2.FRAME_REASON_DUBBED
PROFILE: int = common_pb2.FRAME_REASON_PROFILE_VIEW
COVERED: int = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
SILENT = common_pb2.FRAME_REASON_SILENT


def index_of(faces: list[tuple[int, int, int]], num_frames: int, cuts: tuple[int, ...] = ()) -> FaceIndex:
    """An index of (frame, face id, reason) entries."""
    table = np.array(faces, np.int64).reshape(-1, 3)
    return FaceIndex(
        frame=table[:, 0],
        face_id=table[:, 1],
        reason=table[:, 2],
        area=np.full(len(table), 100.0, np.float32),
        centre=np.zeros((len(table), 2), np.float32),
        shot_cuts=cuts,
        num_frames=num_frames,
    )


def speaking(num_frames: int) -> np.ndarray:
    return np.zeros(num_frames, np.bool_)


def test_mouth_that_is_covered_in_part_is_dubbed() -> None:
    """Of covered mouths, only those whose record says so are dubbed."""
    index = replace(index_of([(0, 1, COVERED), (1, 1, COVERED), (2, 1, DUBBED)], 3), partly_covered=np.array([1]))
    plan = make_plan(index, 1, speaking(3), range(3))
    assert plan.reason.tolist() == [COVERED, DUBBED, DUBBED]
    assert index.reason.tolist() == [COVERED, COVERED, DUBBED]


def test_frames_beside_a_span_fade_its_mouths() -> None:
    """A span has the strength of the whole video, in which frames before the span pass through; its own index knows none."""
    index = index_of([(frame, 1, PROFILE if frame < 4 else DUBBED) for frame in range(10)], 10)
    whole = make_plan(index, 1, speaking(10), range(10)).strength
    np.testing.assert_array_equal(strength_of(index, 1), whole)
    assert whole[4:8].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert make_plan(index.span(range(4, 8)), 1, speaking(4), range(4)).strength.tolist() == [1, 1, 1, 1]


def test_no_face_differs_from_no_target() -> None:
    """Frames without any face and frames without the target have different reasons."""
    plan = make_plan(index_of([(0, 1, DUBBED), (1, 2, DUBBED)], 3), 1, speaking(3), range(3))
    assert plan.reason.tolist() == [DUBBED, common_pb2.FRAME_REASON_TARGET_NOT_PRESENT, common_pb2.FRAME_REASON_NO_FACE]
    assert plan.counts() == {"DUBBED": 1, "TARGET_NOT_PRESENT": 1, "NO_FACE": 1}


def test_tracker_reason_is_kept() -> None:
    """The tracker's reason for the target is kept."""
    plan = make_plan(index_of([(0, 1, DUBBED), (1, 1, PROFILE)], 2), 1, speaking(2), range(2))
    assert plan.reason.tolist() == [DUBBED, PROFILE]
    assert plan.rendered().tolist() == [True, False]


def test_silent_frame_is_rendered() -> None:
    """A silent frame is rendered and reported as silent."""
    plan = make_plan(index_of([(0, 1, DUBBED), (1, 1, DUBBED)], 2), 1, np.array([False, True]), range(2))
    assert plan.reason.tolist() == [DUBBED, SILENT]
    assert plan.rendered().all()


@pytest.mark.parametrize(
    ("own", "limit"), [(SpeakingMotion(1.0, 20.0, 4.0, 1.0, 6.0), 2.6), (None, 2.0)], ids=["known range", "unknown range"]
)
def test_silent_frames_show_mouths_at_rest(own: SpeakingMotion | None, limit: float, tmp_path: Path) -> None:
    """A frame is silent if nobody speaks and the target mouth is at most .08 of the person's range above the rest."""
    openings = np.tile(np.array([limit - 0.1, limit + 0.1, limit - 0.1], np.float32), 300)
    rows = np.zeros(900, MOTION_RECORD)
    rows["speech_probability"] = np.tile([0.1, 0.1, 0.9], 300)

    def target(begin: int, end: int) -> Float32:
        return mouths(openings[begin - 7 : end - 7] - mouth_opening(rest_mouth()))

    with RecordFile(tmp_path / "motion.bin", MOTION_RECORD) as motion:
        motion.append(rows)
        found = silent_frames(motion, target, range(7, 907), own)
    np.testing.assert_array_equal(found, np.tile([True, False, False], 300))


def test_span_fades_at_passed_frames() -> None:
    """A dubbed span fades next to frames that pass through."""
    faces = [(frame, 1, PROFILE if frame == 5 else DUBBED) for frame in range(12)]
    strength = make_plan(index_of(faces, 12), 1, speaking(12), range(12)).strength
    np.testing.assert_allclose(strength[:12], [1, 1, 1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1, 1, 1, 1], atol=1e-6)


def test_no_fade_across_cut() -> None:
    """A span does not fade across a shot cut."""
    faces = [(frame, 1, DUBBED) for frame in range(4)]
    strength = make_plan(index_of(faces, 8, cuts=(4,)), 1, speaking(8), range(8)).strength
    assert strength[:4].tolist() == [1, 1, 1, 1]


def test_without_a_target_nothing_is_rendered() -> None:
    plan = make_plan(index_of([], 3), None, speaking(3), range(3))
    assert not plan.rendered().any()
    assert (plan.row == -1).all()


def test_line_is_planned_alone() -> None:
    """A line dubs its own frames and fades at its ends, but not beside the next line of the face or the end of the video."""
    index = index_of([(frame, 0, DUBBED) for frame in range(20)], 20)
    silent = np.arange(6) == 2
    first = make_plan(index, 0, silent, range(4, 10), [range(10, 20)])
    last = make_plan(index, 0, speaking(10), range(10, 20), [range(4, 10)])
    assert np.flatnonzero(first.rendered()).tolist() == list(range(4, 10))
    assert first.reason[6] == SILENT
    assert {*first.reason[:4].tolist(), *first.reason[10:].tolist()} == {common_pb2.FRAME_REASON_NO_LINE}
    np.testing.assert_allclose(first.strength[4:10], [1 / 3, 2 / 3, 1, 1, 1, 1])
    np.testing.assert_allclose(last.strength[10:], 1.0)
    assert not first.strength[10:].any()
    both = joined_plan([first, last])
    assert both.counts() == {"NO_LINE": 4, "DUBBED": 15, "SILENT": 1}
    np.testing.assert_array_equal(both.strength, first.strength + last.strength)
