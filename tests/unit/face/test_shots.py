"""Tests of shot cuts in drawn scenes."""

from __future__ import annotations

import cv2
import numpy as np

from services.face.shots import ShotDetector


def scene(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC)


def cuts(pictures: list[np.ndarray]) -> list[int]:
    detector = ShotDetector()
    return [index for index, picture in enumerate(pictures) if detector.push(picture)]


def test_a_change_of_scene_is_a_cut() -> None:
    assert cuts([scene(1)] * 5 + [scene(2)] * 5 + [scene(3)] * 2) == [5, 10]


def test_the_first_frame_is_none() -> None:
    assert cuts([scene(1)]) == []


def test_a_pan_is_none() -> None:
    wide = np.concatenate([scene(1), scene(4)], axis=1)
    assert cuts([np.ascontiguousarray(wide[:, x : x + 640]) for x in range(0, 640, 20)]) == []


def test_slow_light_is_none() -> None:
    assert cuts([(scene(1) * gain).astype(np.uint8) for gain in np.linspace(1.0, 0.3, 25)]) == []


def test_tiny_pictures_are_taken() -> None:
    assert cuts([np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)]) == []
