from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import BASE, LIPS, MASK
from services.render.renderers.everyone.renderer import (
    MORE,
    NEIGHBOURS,
    PICTURE_CHANNELS,
    SPEECH,
    FilledFrame,
    filled_frame,
    ground_picture,
    network_picture,
    speech_channel,
    with_filmed_border,
    with_smooth_chroma,
)

COVERED = np.zeros((160, 160), np.bool_)
COVERED[:100] = True


def test_shared_background_keeps_pixel() -> None:
    """Where both pictures show background, the filmed pixel stays."""
    rng = np.random.default_rng(0)
    background = rng.integers(90, 110, (160, 160, 3), dtype=np.uint8)
    drawn = np.full_like(background, 100)
    made = with_filmed_border(drawn, background, COVERED)
    assert np.array_equal(made[:100], drawn[:100])
    assert np.array_equal(made[115:], background[115:])


def test_chin_below_jaw_replaced() -> None:
    """A filmed chin below the drawn jaw is replaced."""
    background, drawn = np.full((160, 160, 3), 200, np.uint8), np.full((160, 160, 3), 90, np.uint8)
    assert np.array_equal(with_filmed_border(drawn, background, COVERED), drawn)


def test_a_face_that_fills_the_box_stays() -> None:
    background, drawn = np.full((160, 160, 3), 100, np.uint8), np.full((160, 160, 3), 101, np.uint8)
    assert with_filmed_border(drawn, background, np.ones((160, 160), np.bool_)) is drawn


def _luma(face: Float32) -> Float32:
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.float32)


def test_the_luma_stays() -> None:
    face = np.random.default_rng(1).uniform(0.0, 255.0, (160, 160, 3)).astype(np.float32)
    assert np.allclose(_luma(with_smooth_chroma(face)), _luma(face), atol=0.01)


def test_thin_green_line_fades() -> None:
    """A green line three pixels wide on grey fades."""
    face = np.full((160, 160, 3), 100.0, np.float32)
    face[80:83] += np.array([-20.0, 20.0, -20.0], np.float32)
    cast = np.ptp(with_smooth_chroma(face), axis=-1).max(axis=1)
    assert np.ptp(face, axis=-1).max() == 40.0
    assert cast.max() < 25.0
    assert cast[:72].max() < 0.1


def test_red_lips_on_skin_keep_their_colour() -> None:
    face = np.full((160, 160, 3), (190.0, 150.0, 120.0), np.float32)
    face[60:80] = (160.0, 70.0, 75.0)
    assert np.allclose(with_smooth_chroma(face)[70], face[70], atol=0.5)
    assert np.allclose(with_smooth_chroma(face)[40], face[40], atol=0.5)


@pytest.fixture(scope="module")
def features() -> UInt8:
    return np.random.default_rng(2).integers(1, 256, (160, 160, 16), dtype=np.uint8)


def frame_of(bank: MouthBank, mask: UInt8, features: UInt8, row: int = 0) -> FilledFrame:
    ground = ground_picture(bank.boxes[row], mask, bank.boxes[20])
    return filled_frame(ground, mask, features, np.ones_like(mask, np.bool_))


def test_features_inside_footage_outside(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    """Features fill the masked area and the footage stays outside."""
    frame = frame_of(bank, mask, features)
    inside = mask > 0
    assert np.array_equal(frame.base[~inside], bank.boxes[0][~inside])
    assert np.array_equal(frame.more[inside], features[inside][:, 3:])
    assert not frame.more[~inside].any()


def test_reference_where_no_face(bank: MouthBank, mask: UInt8, features: UInt8) -> None:
    """Where there is no face, the reference picture stands."""
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
    assert np.array_equal(picture[..., :3], bank.boxes[20])
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
