"""Tests of texture banks: the choice of frames, one exposure, pictures at the footage's own resolution, and their detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays, bank_from_arrays
from services.common.face.mouth_detail import NO_DETAIL
from services.common.face.native_pictures import encoded
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.texture.bank import build_bank
from services.texture.inside_path import InsideCosts
from services.texture.retrieve_warp import WarpStream
from services.texture.temporal_warp import TemporalWarpModel
from services.texture.types import BankFrame, WarpedFrame, WarpMode
from tests.refusals import raised

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


def with_sound(frame: BankFrame) -> BankFrame:
    """The frame with speech, expression and a spoken mouth that tell which frame they are of."""
    speech = np.full((20, 40), frame.frame_index, np.float32)
    expression = np.array([0.5, 1.0, -frame.frame_index], np.float32)
    return replace(frame, speech=speech, expression=expression, spoken_mouth=np.full((59, 3), frame.frame_index, np.float32))


def test_short_clip_kept_in_order(person: DrawnPerson) -> None:
    """A short clip is kept whole and in order."""
    bank = build_bank([person.bank_frame(number) for number in range(20)])
    assert bank.frame_index.tolist() == list(range(20))
    np.testing.assert_array_equal(bank.boxes[7], person.bank_frame(7).box)
    np.testing.assert_allclose(bank.mouth[7], person.mouth(7), atol=1e-2)


def test_two_exposures_become_one(person: DrawnPerson) -> None:
    frames = [person.bank_frame(number) for number in range(8)]
    frames += [person.bank_frame(number, gain=0.8) for number in range(100, 107)]
    bank = build_bank(frames)
    skin = bank.boxes[:, 30, 20].astype(int)
    assert np.abs(skin - skin[0]).max() <= 1


def test_one_shot_keeps_its_light(person: DrawnPerson) -> None:
    frames = [person.bank_frame(number, gain=1.0 - 0.01 * number) for number in range(12)]
    bank = build_bank(frames)
    for frame, box in zip(frames, bank.boxes, strict=True):
        np.testing.assert_array_equal(box, frame.box)


def test_no_frame_is_no_bank() -> None:
    with pytest.raises(NoUsableFootageError):
        build_bank([])


def test_frames_must_come_in_order(person: DrawnPerson) -> None:
    with raised(InvalidRequestError, match="3 came after 4", field="frame.frame_index"):
        build_bank([person.bank_frame(4), person.bank_frame(3)])


def test_a_bank_of_nothing_is_refused(person: DrawnPerson) -> None:
    with pytest.raises(InvalidRequestError):
        build_bank([person.bank_frame(0)], max_frames=0)


@pytest.mark.parametrize(
    ("numbers", "max_frames", "second_gain"),
    [(range(60), 12, 1.0), ((*range(8), *range(100, 107)), 60, 0.8)],
    ids=["some frames are kept", "one exposure for two shots"],
)
def test_kept_frames_keep_speech(person: DrawnPerson, numbers: Sequence[int], max_frames: int, second_gain: float) -> None:
    """Speech and expression of the kept frames are kept."""
    frames = [with_sound(person.bank_frame(number, gain=second_gain if number > 60 else 1.0)) for number in numbers]
    bank = build_bank(frames, max_frames)
    assert bank.speech is not None
    assert bank.expression is not None
    assert bank.speech.shape == (bank.num_frames, 20, 40)
    np.testing.assert_array_equal(bank.speech[:, 0, 0], bank.frame_index)
    np.testing.assert_array_equal(bank.expression[:, 2], -bank.frame_index)
    assert bank.spoken_mouth is not None
    np.testing.assert_array_equal(bank.spoken_mouth[:, 0, 0], bank.frame_index)


def test_footage_without_sound_gives_a_bank_without_speech(person: DrawnPerson) -> None:
    bank = build_bank([person.bank_frame(number) for number in range(7)])
    assert (bank.speech, bank.expression, bank.spoken_mouth) == (None, None, None)


@pytest.mark.parametrize("name", ["speech", "expression"])
def test_all_frames_have_speech_and_expression_or_none(person: DrawnPerson, name: str) -> None:
    frames = [with_sound(person.bank_frame(number)) for number in range(7)]
    frames[3] = replace(frames[3], **{name: None})
    with raised(InvalidRequestError, match="6 of 7 frames", field=f"frame.{name}"):
        build_bank(frames)


def test_expressions_of_different_models_are_refused(person: DrawnPerson) -> None:
    frames = [with_sound(person.bank_frame(number)) for number in range(7)]
    frames[3] = replace(frames[3], expression=np.zeros(4, np.float32))
    with raised(InvalidRequestError, match="the same shape", field="frame.expression"):
        build_bank(frames)


def large(frame: BankFrame, scale: int = 2) -> BankFrame:
    grey = cv2.cvtColor(frame.box, cv2.COLOR_RGB2GRAY)
    native = cv2.resize(grey, (160 * scale,) * 2, interpolation=cv2.INTER_CUBIC)
    native[:: 2 * scale] //= 2
    return replace(frame, native=encoded(native))


@pytest.fixture(scope="module")
def bank(person: DrawnPerson) -> MouthBank:
    return build_bank([large(person.bank_frame(number)) for number in range(30)], max_frames=20)


def detail(bank: MouthBank, person: DrawnPerson, model: TemporalWarpModel, scale: int) -> np.ndarray:
    answered = WarpStream(InsideCosts(bank), WarpMode.TEMPORAL_WARP_NETWORK, model, scale).push(person.target(200))
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
    answered = WarpStream(InsideCosts(bank), WarpMode.TEMPORAL_WARP_NETWORK, model).push(person.target(200))
    assert answered is not None
    assert answered.detail is None


def test_pictures_of_all_frames(person: DrawnPerson) -> None:
    """Pictures are those of all frames and of one size."""
    frames = [person.bank_frame(number) for number in range(6)]
    with pytest.raises(InvalidRequestError, match=r"frame\.native: 1 of 6 frames have it"):
        build_bank([large(frames[0]), *frames[1:]])
    with pytest.raises(InvalidRequestError, match="not 320 and 480 pixels a side"):
        build_bank([large(frames[0], 3), *map(large, frames[1:])])
