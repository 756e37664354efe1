"""The albedo modes of RetrieveWarp."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.crops import head_to_box
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.landmarks import MOUTH_AREA
from services.texture.draw_identity import IdentityStream
from services.texture.types import TargetFrame, WarpedFrame, WarpMode
from tests.unit.texture.people import HEAD, MODEL, POSE, a_person, turned

MOUTH = HEAD[list(MOUTH_AREA)]
DRAWING = IdentityDrawing(a_person(), MODEL)


def target(frame: int, *, context_only: bool = False) -> TargetFrame:
    pose = dataclasses.replace(POSE, rotation=turned(yaw=2.0 * frame))
    return TargetFrame(frame, MOUTH + np.array([0.0, 0.1 * frame, 0.0], np.float32), pose, context_only)


@pytest.mark.parametrize("mode", [WarpMode.LOW_FREQUENCY_ALBEDO, WarpMode.DETAILED_ALBEDO])
def test_a_frame_depends_on_itself_alone(mode: WarpMode) -> None:
    whole = IdentityStream(DRAWING, mode)
    answers = [whole.push(target(frame)) for frame in range(4)]
    alone = IdentityStream(DRAWING, mode).push(target(3))
    assert isinstance(alone, WarpedFrame)
    assert isinstance(answers[3], WarpedFrame)
    assert alone.texture.tobytes() == answers[3].texture.tobytes()
    assert (
        alone.texture.tobytes()
        == DRAWING.draw(target(3).mouth, target(3).pose, detailed=mode is WarpMode.DETAILED_ALBEDO).tobytes()
    )
    np.testing.assert_array_equal(alone.box_landmarks, head_to_box(target(3).mouth, target(3).pose))
    assert (alone.bank_frame_index, alone.distance, alone.fitting_error, alone.bending_energy) == (-1, 0.0, 0.0, 0.0)


def test_context_is_not_answered() -> None:
    assert IdentityStream(DRAWING, WarpMode.LOW_FREQUENCY_ALBEDO).push(target(0, context_only=True)) is None


def test_frames_must_come_in_order() -> None:
    stream = IdentityStream(DRAWING, WarpMode.LOW_FREQUENCY_ALBEDO)
    stream.push(target(2))
    with pytest.raises(InvalidRequest, match="must increase"):
        stream.push(target(2))


def test_no_detail_is_refused_at_once() -> None:
    plain = IdentityDrawing(a_person(texture=np.zeros((0, 0, 3), np.uint8), seen=np.zeros((0, 0), np.uint8)), MODEL)
    IdentityStream(plain, WarpMode.LOW_FREQUENCY_ALBEDO)
    with pytest.raises(InvalidRequest) as caught:
        IdentityStream(plain, WarpMode.DETAILED_ALBEDO)
    assert caught.value.field == "config.identity"
