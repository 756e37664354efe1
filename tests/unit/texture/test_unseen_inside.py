"""The inside of a mouth that the bank never shows open."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest

from services.common.array_types import UInt8
from services.common.face.landmarks import LIPS_OUTER, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.texture.build_bank import build_bank
from services.texture.models import TemporalWarpModel
from services.texture.retrieve_warp import WarpStream
from services.texture.types import WarpedFrame, WarpMode
from services.texture.unseen_inside import UnseenInside

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


@pytest.fixture(scope="module")
def shut(person: DrawnPerson) -> MouthBank:
    """Ninety frames of the person, on which the lips are 1 px apart."""
    silent = copy.copy(person)
    apart = float(mouth_opening(person.mouth(0))) - person.opening(0)
    silent.opening = lambda _: 1.0 - apart  # type: ignore[method-assign,assignment]
    return build_bank([silent.bank_frame(frame) for frame in range(90)])


def warped(bank: MouthBank, model: TemporalWarpModel, person: DrawnPerson, frame: int) -> WarpedFrame:
    found = WarpStream(bank, WarpMode.TEMPORAL_WARP_NETWORK, model).push(person.target(frame))
    assert found is not None
    return found


def between_the_lips(frame: WarpedFrame) -> UInt8:
    """The pixels around the middle of the wanted inner lips."""
    x, y = np.rint(frame.box_landmarks[len(LIPS_OUTER) : NUM_LIPS].mean(axis=0)).astype(int)
    return frame.texture[y - 1 : y + 2, x - 2 : x + 3]


def test_an_open_mouth_of_a_person_who_is_never_seen_with_one_is_dark_inside(
    person: DrawnPerson, shut: MouthBank, model: TemporalWarpModel
) -> None:
    frame = warped(shut, model, person, max(range(90), key=person.opening))
    lips = shut.boxes[shut.medoid].astype(np.float32).mean()
    assert between_the_lips(frame).max() < 0.5 * lips


def test_shut_lips_have_no_dark_line(shut: MouthBank) -> None:
    texture, wanted = shut.boxes[0], shut.control_points[0].copy()
    upper, lower = slice(len(LIPS_OUTER) + 1, len(LIPS_OUTER) + 10), slice(NUM_LIPS - 1, len(LIPS_OUTER) + 10, -1)
    wanted[lower] = wanted[upper]
    assert np.array_equal(UnseenInside(shut).drawn(texture, wanted), texture)


def test_nothing_is_drawn_for_a_person_whose_open_mouth_is_known(person: DrawnPerson) -> None:
    bank = build_bank([person.bank_frame(frame) for frame in range(90)])
    inside = UnseenInside(bank)
    assert not inside.needed
    assert np.array_equal(inside.drawn(bank.boxes[0], bank.control_points[0]), bank.boxes[0])
