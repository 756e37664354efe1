from __future__ import annotations

import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import NUM_LANDMARKS
from services.face.appearance import LOWER, UPPER, Appearance, AppearanceMemory, sample_appearance

HEAD = head_template()


def skin(seed: int, light: float = 0.0) -> Appearance:
    random = np.random.default_rng(seed)
    base = np.array([150.0, 145.0, 150.0])
    lower = base + random.normal(0, 1, (len(LOWER), 3)) + [light, 0, 0]
    upper = base + random.normal(0, 1, (len(UPPER), 3)) + [light, 0, 0]
    return Appearance(lower.astype(np.float32), upper.astype(np.float32))


def remembering(frames: int = 20) -> AppearanceMemory:
    memory = AppearanceMemory()
    for seed in range(frames):
        memory.measure(skin(seed), 0.0)
    return memory


def test_skin_that_stays_itself_is_not_foreign() -> None:
    memory = AppearanceMemory()
    assert max(memory.measure(skin(seed), 0.0) for seed in range(30)) == 0.0


def test_light_on_the_whole_face_is_not_foreign() -> None:
    assert remembering().measure(skin(99, light=-60.0), 0.0) == 0.0


def test_a_patch_of_another_colour_is() -> None:
    seen = skin(99)
    left = HEAD[LOWER, 0] < -10
    seen.lower[left] = [140.0, 133.0, 160.0]
    assert remembering().measure(seen, 0.0) == pytest.approx(0.4, abs=0.15)


def test_a_patch_that_stays_is_not_learnt_within_a_second() -> None:
    memory = remembering()
    shares = []
    for seed in range(25):
        seen = skin(100 + seed)
        seen.lower[HEAD[LOWER, 1] > 20] = [40.0, 128.0, 128.0]
        shares.append(memory.measure(seen, 0.0))
    assert min(shares) > 0.2


def test_colours_are_those_of_the_picture_at_the_vertices() -> None:
    pose = HeadPose(1.5, np.eye(3), np.array([320.0, 240.0, 0.0]))
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, :320] = 200
    landmarks = to_frame(np.concatenate([HEAD, np.zeros((NUM_LANDMARKS - 468, 3), np.float32)]), pose)
    colours = sample_appearance(picture, landmarks, pose)
    assert (colours.lower[HEAD[LOWER, 0] < -8, 0] > 190).all()
    assert (colours.lower[HEAD[LOWER, 0] > 8, 0] < 10).all()
