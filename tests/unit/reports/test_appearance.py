"""What eyes see of a mouth, on drawn faces whose every fault is known. tests/system/test_appearance.py has real ones."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from gateway.reports.appearance import (
    NUM_FEATURES,
    OwnMouth,
    appearance_metrics,
    clothing_alarms,
    clothing_moved,
    joined,
    kernel_distance,
    mouth_appearance,
    skin_light,
)
from services.common.face.crops import head_template
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIPS_INNER

MIDDLE = np.array([80.0, 64.0], np.float32)
OPEN = np.full(60, 9.0, np.float32)


def meshes(openings: np.ndarray) -> np.ndarray:
    """float32 [T, 478, 2]: the mean head about the middle of the mouth, its lower inner lip lowered by the opening."""
    points = np.zeros((len(openings), 478, 2), np.float32)
    points[:, :468] = head_template()[:, :2] + MIDDLE
    gap = np.linalg.norm(points[0, list(INNER_LOWER_MIDDLE)] - points[0, list(INNER_UPPER_MIDDLE)], axis=-1).mean()
    lower = LIPS_INNER[11:]
    points[:, lower, 1] += (openings - gap)[:, None]
    return points


def faces(openings: np.ndarray, seed: int = 0, teeth: tuple[int, int, int] = (200, 195, 180)) -> np.ndarray:
    """uint8 [T, 160, 160, 3]: skin, red lips, a dark mouth with bright teeth of changing width, a striped shirt below."""
    random = np.random.default_rng(seed)
    boxes = np.empty((len(openings), 160, 160, 3), np.uint8)
    for box, mesh in zip(boxes, meshes(openings), strict=True):
        box[:] = (170, 130, 110)
        box[146:, ::6] = box[146:, 1::6] = box[146:, 2::6] = (30, 60, 150)
        box[146:, 3::6] = box[146:, 4::6] = box[146:, 5::6] = (20, 20, 60)
        inner = mesh[list(LIPS_INNER)]
        cv2.fillPoly(box, [np.rint(inner).astype(np.int32)], (40, 20, 20))
        top, width = int(mesh[13, 1]), int(random.integers(8, 14))
        box[top + 1 : top + 4, 80 - width : 80 + width] = teeth
        box[:] = np.clip(box + random.normal(0, 2, box.shape), 0, 255)
    return boxes


def test_exposure_changes_no_figure() -> None:
    points, boxes = meshes(OPEN), faces(OPEN)
    darker = np.rint(boxes * 0.8).astype(np.uint8)
    bright, dark = (mouth_appearance(each, points, skin_light(each, points)) for each in (boxes, darker))
    np.testing.assert_allclose(dark.bright, bright.bright, atol=1.5)
    np.testing.assert_allclose(dark.contrast, bright.contrast, rtol=0.05)
    np.testing.assert_allclose(dark.lip_light, bright.lip_light, rtol=0.02)
    assert OwnMouth.of(bright).tinted(dark).mean() <= 0.05


def test_yellow_teeth_alarm() -> None:
    points, boxes = meshes(OPEN), faces(OPEN)
    light = skin_light(boxes, points)
    video, again, yellow = (
        mouth_appearance(each, points, light) for each in (boxes, faces(OPEN, seed=1), faces(OPEN, seed=1, teeth=(200, 170, 90)))
    )
    still = np.zeros(len(OPEN), np.float32)
    assert appearance_metrics(video, again, still, 0.2).tint_alarms <= 0.05
    found = appearance_metrics(video, yellow, still, 0.2)
    assert found.tint_alarms == 1.0
    assert found.face_distance == 0.2
    assert found.mouth_distance > appearance_metrics(video, again, still, 0.2).mouth_distance


def test_moved_stripes_are_clothing() -> None:
    """A shirt that moves alarms; a mouth that moves and a picture that is encoded anew do not."""
    points, boxes = meshes(OPEN[:4]), faces(OPEN[:4])
    shifted = boxes.copy()
    shifted[:, 146:] = np.roll(boxes[:, 146:], 2, axis=2)
    other = boxes.copy()
    other[:, :130] = faces(OPEN[:4] + 4)[:, :130]
    assert clothing_alarms(clothing_moved(boxes, shifted, points)).tolist() == [1.0] * 4
    assert clothing_alarms(clothing_moved(boxes, other, points)).tolist() == [0.0] * 4
    bare = np.full_like(boxes, (170, 130, 110))
    assert np.isnan(clothing_moved(bare, bare, points)).all()


def test_a_shaded_neck_is_not_clothing() -> None:
    """A camera shows skin in the shade darker and more saturated than the cheeks; a neck may move with the jaw."""
    points, boxes = meshes(OPEN[:4]), faces(OPEN[:4])
    boxes[:, :140] = np.clip(boxes[:, :140] * np.array([0.92, 0.85, 0.72]), 0, 255).astype(np.uint8)
    skin = boxes[0, 130, 80].astype(float)
    stripes = np.where(np.arange(160)[:, None] // 4 % 2, 0.5 * skin - 28.0, 0.38 * skin - 24.0)
    boxes[:, 140:] = stripes.astype(np.uint8)
    moved = boxes.copy()
    moved[:, 140:] = np.roll(boxes[:, 140:], 2, axis=2)
    assert np.nan_to_num(clothing_alarms(clothing_moved(boxes, moved, points))).tolist() == [0.0] * 4
    black = boxes.copy()
    black[:, 140:] = np.where(np.arange(160)[:, None] // 4 % 2, 8, 40)
    moved[:, 140:] = np.roll(black[:, 140:], 2, axis=2)
    assert clothing_alarms(clothing_moved(black, moved, points)).tolist() == [1.0] * 4


def test_unknown_frames_are_not_measured() -> None:
    points, boxes = meshes(OPEN[:6]), faces(OPEN[:6])
    points[2] = np.nan
    light = skin_light(boxes, points)
    light[4] = 0.0
    seen = mouth_appearance(boxes, points, light)
    for values in (seen.opening, seen.contrast, seen.shade, seen.lip_light, seen.bright[:, 0], seen.features[:, 0]):
        assert np.isnan(values).tolist() == [False, False, True, False, True, False]
    assert np.isnan(seen.change).tolist() == [True, False, True, True, True, True], "no frame before is known"
    parts = joined([mouth_appearance(boxes[at], points[at], light[at]) for at in (slice(0, 3), slice(3, 6))])
    np.testing.assert_array_equal(parts.bright, seen.bright)


def test_too_few_frames_tell_nothing() -> None:
    """A person who is hardly seen with an open mouth has no figures of the inside, and no division by zero."""
    points, boxes = meshes(OPEN[:5]), faces(OPEN[:5])
    seen = mouth_appearance(boxes, points, skin_light(boxes, points))
    found = appearance_metrics(seen, seen, np.full(5, np.nan, np.float32), math.nan)
    assert all(math.isnan(value) for value in (found.tint_alarms, found.nostril_alarms, found.low_contrast, found.clothing_moved))
    assert found.popping == 1.0


def test_kernel_distance_ranks() -> None:
    """The distance is about 0 for one distribution, and grows with the difference."""
    random = np.random.default_rng(2)
    own, same, near, far = (random.normal(mean, 1.0, (80, NUM_FEATURES)).astype(np.float32) for mean in (0, 0, 0.5, 1.0))
    distances = [kernel_distance(own, each) for each in (same, near, far)]
    assert abs(distances[0]) < 0.1 * distances[1]
    assert distances[1] < distances[2]
    assert math.isnan(kernel_distance(own, own[:1]))
    unknown = np.concatenate([near, np.full((3, NUM_FEATURES), np.nan, np.float32)])
    assert kernel_distance(own, unknown) == pytest.approx(distances[1])
