"""Mouths that are shut and opened."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.crops import head_template
from services.common.face.landmarks import (
    MOUTH_AREA,
    NUM_LIPS,
    lip_gaps,
    lip_width,
    mouth_opening,
    never_open,
    part_lips,
    shut_lips,
)

SHUT: Float32 = shut_lips(head_template()[list(MOUTH_AREA)])


def test_shut_lips_touch_and_parted_lips_are_as_far_apart_as_told() -> None:
    assert mouth_opening(SHUT) < 1e-3
    gaps = np.random.default_rng(0).normal(0.0, 1.0, (9, 3)).astype(np.float32) + np.float32([0.0, 9.0, 0.0])
    parted = part_lips(SHUT, gaps)
    np.testing.assert_allclose(lip_gaps(parted), gaps, atol=1e-4)
    np.testing.assert_allclose(lip_width(parted), lip_width(SHUT))


def test_the_chin_follows_the_lower_lip_and_the_ears_stay() -> None:
    moved = part_lips(SHUT, np.tile(np.float32([0.0, 10.0, 0.0]), (9, 1)))[NUM_LIPS:] - SHUT[NUM_LIPS:]
    chin = int(np.argmax(SHUT[NUM_LIPS:, 1]))
    assert moved[chin, 1] == moved[:, 1].max() == np.float32(7.0)
    assert moved[:, 1].min() == 0.0


def test_a_person_is_never_seen_with_an_open_mouth_if_hardly_any_frame_shows_one() -> None:
    still = np.tile(SHUT, (100, 1, 1))
    opened = part_lips(SHUT, np.tile(np.float32([0.0, 10.0, 0.0]), (9, 1)))
    assert never_open(still)
    still[7] = opened
    assert never_open(still)
    still[[20, 40, 60]] = opened
    assert not never_open(still)
