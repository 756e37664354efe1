"""The mark as it is added to the mouth, and what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.detection import log10_tail
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from gateway.provenance.watermark.pattern import (
    AMPLITUDE,
    CELLS,
    CHIP_S,
    CONFIRMING,
    PERIOD,
    Spreading,
    confirming_chips,
    public_spreading,
    reduced,
)
from gateway.provenance.watermark.payload import PUBLIC, SECRET, Payload, installation_of, watermark_key
from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE, CROP_SIZE

KEY, OTHER_KEY = watermark_key(b"an installation"), watermark_key(b"another installation")
PAYLOAD = Payload.of_video(KEY, b"what the manifest says")
SMALL, LARGE = 0.9, 3.0
"""Pixels of the frame per box pixel: of a face with the full strength, and of one whose strength follows its motion."""
SECRET_PAYLOAD = Payload.of_video(KEY, b"what the manifest says", public=False)


@pytest.fixture(scope="module")
def box() -> UInt8:
    """A render box with smooth patches, uint8 RGB [160, 160, 3]."""
    patches = np.random.default_rng(3).integers(40, 200, (8, 8)).astype(np.uint8)
    gray = cv2.resize(patches, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.repeat(gray[..., None], 3, 2), np.uint8)


def marks(box: UInt8, times: Float64, scale: float = SMALL, payload: Payload = PAYLOAD) -> list[FrameMark]:
    face = MarkedFace(Mark(KEY, payload))
    return [face.of_frame(float(time), box, scale) for time in times]


def lumas(box: UInt8, times: Float64) -> list[Float32]:
    return [mark.luma(BOX_SIZE) for mark in marks(box, times)]


def test_mark_is_weak_and_deterministic(box: UInt8) -> None:
    """The mark is weak and equal in every run."""
    times = np.arange(40) / 25.0
    for light, again in zip(lumas(box, times), lumas(box, times), strict=True):
        assert np.array_equal(light, again)
        assert np.abs(light).max() <= AMPLITUDE + 1e-4
        assert 10 * np.log10(255**2 * CROP_SIZE**2 / (light**2).sum()) > 45


def test_large_resting_face_half_strength(box: UInt8) -> None:
    """The mark of a large face that rests has half the strength."""
    times = np.arange(10) / 25.0
    for full, half in zip(marks(box, times), marks(box, times, LARGE), strict=True):
        assert half.luma(BOX_SIZE) == pytest.approx(0.5 * full.luma(BOX_SIZE), abs=1e-5)


def test_resting_mark_repeats(box: UInt8) -> None:
    """The mark of a face that rests repeats and changes little from frame to frame."""
    period = lumas(box, np.array([0.0, 1.3, PERIOD * CHIP_S, 1.3 + PERIOD * CHIP_S]))
    assert period[1] == pytest.approx(period[3], abs=1e-3)
    video = lumas(box, 0.02 * np.arange(50))
    assert max(np.abs(later - earlier).max() for earlier, later in zip(video, video[1:], strict=False)) < 0.35 * AMPLITUDE


def test_picture_changes_mark_chip_keeps_sign(box: UInt8) -> None:
    """Another picture has another mark and a chip never changes its sign."""
    times = 0.02 * np.arange(50)
    other = np.ascontiguousarray(box.transpose(1, 0, 2))
    here, there = lumas(box, times), lumas(other, times)
    assert abs(np.corrcoef(np.ravel(here), np.ravel(there))[0, 1]) < 0.2
    face = MarkedFace(Mark(KEY, PAYLOAD))
    video = [face.of_frame(float(time), box if time < 0.5 else other, SMALL).luma(BOX_SIZE) for time in times]
    assert max(np.abs(later - earlier).max() for earlier, later in zip(video, video[1:], strict=False)) < 0.35 * AMPLITUDE


def test_native_boxes_same_mark(box: UInt8) -> None:
    """Native boxes have the same mark in more pixels."""
    (mark,) = marks(box, np.array([0.7]))
    for side in (320, 640):
        small = cv2.resize(mark.luma(side), (160, 160), interpolation=cv2.INTER_AREA)
        assert small == pytest.approx(mark.luma(160), abs=0.1)


def test_bits_share_chips_equally() -> None:
    """Every bit has as many chips and keys have signs of their own."""
    spreading, other = Spreading.of_key(KEY), Spreading.of_key(OTHER_KEY)
    assert set(np.bincount(spreading.bit.ravel()).tolist()) == {96}
    assert abs(float((spreading.sign * other.sign).mean())) < 0.05
    assert abs(float(spreading.sign.mean())) < 0.05


def test_public_bits_share_readable_chips() -> None:
    """Every bit of a public mark has five chips in four steps, and each step has chips of the installation alone."""
    bit = public_spreading().bit
    assert set((bit < 0).sum(1).tolist()) == {CONFIRMING}
    assert all(set(np.bincount(steps[steps >= 0]).tolist()) == {5} for steps in bit.reshape(-1, 4 * CELLS))
    assert set(np.bincount(bit[bit >= 0]).tolist()) == {PERIOD * 5 // 4}
    mine, theirs = confirming_chips(KEY, PAYLOAD.word), confirming_chips(OTHER_KEY, PAYLOAD.word)
    assert np.array_equal(mine != 0.0, bit < 0)
    assert np.array_equal(public_spreading().chips(PAYLOAD.word) == 0.0, bit < 0)
    assert abs(float((mine * theirs)[bit < 0].mean())) < 0.1
    assert abs(float((mine * confirming_chips(KEY, SECRET_PAYLOAD.word))[bit < 0].mean())) < 0.1


def test_every_chip_of_a_mark_has_a_sign(box: UInt8) -> None:
    """Each version of the mark uses all chips, at one strength."""
    picture = reduced(np.ascontiguousarray(box[..., 0]))
    for payload in (PAYLOAD, SECRET_PAYLOAD):
        mark = Mark(KEY, payload)
        assert all(set(mark.signs(picture, step).tolist()) == {-1.0, 1.0} for step in range(PERIOD))


def test_payload_is_nine_digits() -> None:
    """A payload names key and video in nine digits."""
    assert str(PAYLOAD) == f"{installation_of(KEY):03x}{PAYLOAD.video:06x}"
    assert Payload.of_message(int(str(PAYLOAD), 16)) == PAYLOAD
    assert installation_of(KEY) != installation_of(OTHER_KEY)


def test_payload_from_manifest_and_key() -> None:
    """The video in a payload follows from the manifest and from the key."""
    assert Payload.of_video(KEY, b"what the manifest says") == PAYLOAD
    assert Payload.of_video(KEY, b"what another manifest says").video != PAYLOAD.video
    assert Payload.of_video(OTHER_KEY, b"what the manifest says").video != PAYLOAD.video


def test_payload_tells_version() -> None:
    """A payload tells its version to the key that it names."""
    assert (PAYLOAD.version(KEY), SECRET_PAYLOAD.version(KEY)) == (PUBLIC, SECRET)
    assert PAYLOAD.video == SECRET_PAYLOAD.video
    assert PAYLOAD.version(OTHER_KEY) == 0


@pytest.mark.parametrize(("total", "log10"), [(64.0, -0.32195), (100.0, -2.57085), (200.0, -15.18603), (1500.0, -270.49068)])
def test_chi_squared_tail(total: float, log10: float) -> None:
    """The tail is that of the chi squared distribution."""
    assert log10_tail(total, 64) == pytest.approx(log10, abs=1e-4)
