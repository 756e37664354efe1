"""Banks with pictures at the footage's own resolution, and the detail of their textures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays, bank_from_arrays
from services.common.face.mouth_detail import NO_DETAIL
from services.common.face.native_pictures import encoded
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.texture.build_bank import build_bank
from services.texture.models import TemporalWarpModel
from services.texture.retrieve_warp import WarpStream
from services.texture.types import BankFrame, WarpedFrame, WarpMode

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


def large(frame: BankFrame, scale: int = 2) -> BankFrame:
    grey = cv2.cvtColor(frame.box, cv2.COLOR_RGB2GRAY)
    native = cv2.resize(grey, (160 * scale,) * 2, interpolation=cv2.INTER_CUBIC)
    native[:: 2 * scale] //= 2
    return replace(frame, native=encoded(native))


@pytest.fixture(scope="module")
def bank(person: DrawnPerson) -> MouthBank:
    return build_bank([large(person.bank_frame(number)) for number in range(30)], max_frames=20)


def detail(bank: MouthBank, person: DrawnPerson, model: TemporalWarpModel, scale: int) -> np.ndarray:
    stream = WarpStream(bank, WarpMode.TEMPORAL_WARP_NETWORK, model, scale)
    answered = stream.push(person.target(200))
    assert isinstance(answered, WarpedFrame)
    assert answered.detail is not None
    return answered.detail


def test_the_kept_frames_keep_their_pictures(bank: MouthBank, person: DrawnPerson) -> None:
    assert bank.native is not None
    for row, number in enumerate(bank.frame_index.tolist()):
        expected = large(person.bank_frame(number)).native
        assert expected is not None
        shown = cv2.imdecode(np.frombuffer(expected.data, np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(bank.native.luma(row), shown)


def test_a_stored_bank_has_its_pictures(bank: MouthBank, person: DrawnPerson, model: TemporalWarpModel) -> None:
    stored = bank_from_arrays(decode_arrays(encode_arrays(bank_arrays(bank), {"format": FORMAT})))
    np.testing.assert_array_equal(detail(stored, person, model, 2), detail(bank, person, model, 2))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_texture_has_detail_of_the_wanted_size(
    bank: MouthBank, person: DrawnPerson, model: TemporalWarpModel, scale: int
) -> None:
    found = detail(bank, person, model, scale)
    assert found.shape == (160 * scale,) * 2
    assert np.abs(found.astype(int) - NO_DETAIL).mean() > 1.0


def test_a_bank_of_small_footage_gives_detail_too(person: DrawnPerson, model: TemporalWarpModel) -> None:
    small = build_bank([person.bank_frame(number) for number in range(30)])
    assert small.native is None
    assert detail(small, person, model, 3).shape == (480, 480)


def test_without_a_wish_there_is_no_detail(bank: MouthBank, person: DrawnPerson, model: TemporalWarpModel) -> None:
    answered = WarpStream(bank, WarpMode.TEMPORAL_WARP_NETWORK, model).push(person.target(200))
    assert answered is not None
    assert answered.detail is None


def test_pictures_are_those_of_all_frames_and_of_one_size(person: DrawnPerson) -> None:
    frames = [person.bank_frame(number) for number in range(6)]
    with pytest.raises(InvalidRequest, match=r"frame\.native: 1 of 6 frames have it"):
        build_bank([large(frames[0]), *frames[1:]])
    with pytest.raises(InvalidRequest, match="not 320 and 480 pixels a side"):
        build_bank([large(frames[0], 3), *map(large, frames[1:])])
