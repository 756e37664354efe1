"""The mark as it is added to the mouth, and what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.chance import log10_tail
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.layout import AMPLITUDE, CHIP_S, PERIOD
from gateway.provenance.watermark.payload import Payload, installation_of, watermark_key
from gateway.provenance.watermark.spreading import Spreading
from services.common.face.crops import CROP_SIZE

KEY, OTHER_KEY = watermark_key(b"an installation"), watermark_key(b"another installation")
PAYLOAD = Payload.of_film(KEY, b"what the manifest says")
TIMES = (0.0, 0.04, 1.2345, 12.79, 100.0)


def test_the_mark_is_weak_and_depends_on_the_time_alone() -> None:
    one, other = Mark(KEY, PAYLOAD), Mark(KEY, PAYLOAD)
    for time in reversed(TIMES):
        other.luma(time, 160)
    for time in TIMES:
        light = one.luma(time, 160)
        assert np.array_equal(light, other.luma(time, 160))
        assert np.abs(light).max() <= AMPLITUDE + 1e-4
        assert 10 * np.log10(255**2 * CROP_SIZE**2 / (light**2).sum()) > 45


def test_the_strength_scales_the_mark() -> None:
    mark = Mark(KEY, PAYLOAD)
    assert mark.luma(1.3, 160, 0.5) == pytest.approx(0.5 * mark.luma(1.3, 160), abs=1e-5)


def test_the_mark_repeats_and_changes_little_from_frame_to_frame() -> None:
    mark = Mark(KEY, PAYLOAD)
    assert mark.luma(1.3, 160) == pytest.approx(mark.luma(1.3 + PERIOD * CHIP_S, 160), abs=1e-3)
    steps = [np.abs(mark.luma(0.02 * n + 0.02, 160) - mark.luma(0.02 * n, 160)).max() for n in range(50)]
    assert max(steps) < 0.35 * AMPLITUDE


def test_native_boxes_have_the_same_mark_in_more_pixels() -> None:
    mark = Mark(KEY, PAYLOAD)
    for side in (320, 640):
        small = cv2.resize(mark.luma(0.7, side), (160, 160), interpolation=cv2.INTER_AREA)
        assert small == pytest.approx(mark.luma(0.7, 160), abs=0.1)


def test_every_bit_has_as_many_chips_and_keys_have_signs_of_their_own() -> None:
    spreading, other = Spreading.of_key(KEY), Spreading.of_key(OTHER_KEY)
    assert set(np.bincount(spreading.bit.ravel()).tolist()) == {96}
    assert abs(float((spreading.sign * other.sign).mean())) < 0.05
    assert abs(float(spreading.sign.mean())) < 0.05


def test_a_payload_names_key_and_film_in_nine_digits() -> None:
    assert str(PAYLOAD) == f"{installation_of(KEY):03x}{PAYLOAD.film:06x}"
    assert Payload.of_message(int(str(PAYLOAD), 16)) == PAYLOAD
    assert installation_of(KEY) != installation_of(OTHER_KEY)


def test_the_film_in_a_payload_follows_from_the_manifest_and_from_the_key() -> None:
    assert Payload.of_film(KEY, b"what the manifest says") == PAYLOAD
    assert Payload.of_film(KEY, b"what another manifest says").film != PAYLOAD.film
    assert Payload.of_film(OTHER_KEY, b"what the manifest says").film != PAYLOAD.film


def test_a_payload_tells_its_version_to_the_key_that_it_names() -> None:
    assert PAYLOAD.version(KEY) == 2
    assert Payload(installation_of(KEY, 1), 0xC0FFEE).version(KEY) == 1
    assert PAYLOAD.version(OTHER_KEY) == 0


@pytest.mark.parametrize(("total", "log10"), [(64.0, -0.32195), (100.0, -2.57085), (200.0, -15.18603), (1500.0, -270.49068)])
def test_the_tail_is_that_of_the_chi_squared_distribution(total: float, log10: float) -> None:
    assert log10_tail(total, 64) == pytest.approx(log10, abs=1e-4)
