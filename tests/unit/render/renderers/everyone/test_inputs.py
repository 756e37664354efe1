from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import BASE, LIPS, MASK
from services.render.renderers.everyone.inputs import (
    MORE,
    NEIGHBOURS,
    PICTURE_CHANNELS,
    REFERENCE,
    SPEECH,
    FilledFrame,
    filled_frame,
    ground_picture,
    network_picture,
    speech_channel,
)


@pytest.fixture(scope="module")
def features() -> UInt8:
    return np.random.default_rng(2).integers(1, 256, (160, 160, 16), dtype=np.uint8)


def frame_of(bank: MouthBank, mask: UInt8, features: UInt8, row: int = 0) -> FilledFrame:
    ground = ground_picture(bank.boxes[row], mask, bank.boxes[20])
    return filled_frame(ground, mask, features, np.ones_like(mask, np.bool_))


def test_features_fill_the_masked_area_and_the_footage_stays_outside(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    frame = frame_of(bank, mask, features)
    inside = mask > 0
    assert np.array_equal(frame.base[~inside], bank.boxes[0][~inside])
    assert np.array_equal(frame.more[inside], features[inside][:, 3:])
    assert not frame.more[~inside].any()


def test_where_there_is_no_face_the_reference_picture_stands(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    ground = ground_picture(bank.boxes[0], mask, bank.boxes[20])
    covered = np.zeros_like(mask, np.bool_)
    covered[:100] = True
    frame = filled_frame(ground, mask, features, covered)
    assert np.array_equal(frame.base[100:], ground[100:])
    # No line where the face ends: the features count more and more inside the outline.
    change = np.abs(frame.base.astype(int) - ground).mean(axis=-1)
    assert change[99][mask[99] > 0].mean() < 0.5 * change[90][mask[90] > 0].mean()
    assert not frame.more[100:].any()
    assert frame.more[:100].any()


def test_no_pixel_under_the_mask_is_seen(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(7), bank.boxes[0])
    covered = np.ones_like(mask, np.bool_)
    one, other = (
        filled_frame(ground_picture(box, mask, bank.boxes[20]), mask, features, covered) for box in (bank.boxes[0], hidden)
    )
    assert np.array_equal(one.base, other.base)
    assert np.array_equal(one.more, other.more)


def test_the_picture_has_every_input_at_its_place(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    frames = [frame_of(bank, mask, np.roll(features, row, axis=0), row) for row in (3, 4, 5)]
    speech = np.random.default_rng(1).random((20, 40), np.float32)
    lips = np.full_like(mask, 9)
    picture = network_picture(frames, bank.boxes[20], lips, speech)
    assert picture.shape == (160, 160, PICTURE_CHANNELS)
    assert np.array_equal(picture[..., REFERENCE], bank.boxes[20])
    assert np.array_equal(picture[..., BASE], frames[1].base)
    assert np.array_equal(picture[..., MASK], mask)
    assert np.array_equal(picture[..., LIPS], lips)
    assert np.array_equal(picture[..., MORE], frames[1].more)
    for channels, frame in zip(NEIGHBOURS, (frames[0], frames[2]), strict=True):
        assert np.array_equal(picture[..., channels], np.dstack([frame.base, frame.more, frame.mask]))
    assert np.array_equal(picture[::8, ::4, SPEECH], np.rint(speech * 255))
    with pytest.raises(ValueError, match="3 frames expected, 2 given"):
        network_picture(frames[:2], bank.boxes[20], lips, speech)


def test_speech_fills_a_larger_box_too() -> None:
    speech = np.zeros((20, 40), np.float32)
    speech[3, 5] = 1.0
    channel = speech_channel(speech, 320)
    assert channel.shape == (320, 320)
    assert channel[48:64, 40:48].min() == 255
    assert int((channel > 0).sum()) == 16 * 8
