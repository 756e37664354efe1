"""The committed networks, loaded once, the style of a made-up person, and made-up training clips."""

from __future__ import annotations

import numpy as np
import pytest

from research.motion.clips import Clips
from services.motion.head_network import encode_head_style
from services.motion.models import MotionModels
from services.motion.style import Style, encode_style
from services.motion.types import Footage
from tests.unit.motion.made_clips import in_memory, made_clip
from tests.unit.motion.moving_head import FRAMES, talking
from tests.unit.motion.synthesised import head_poses, mouths


@pytest.fixture(scope="session")
def models() -> MotionModels:
    return MotionModels()


@pytest.fixture(scope="session")
def style(models: MotionModels) -> Style:
    opening = 5.0 + 4.0 * np.sin(np.arange(100) * 0.7)
    return encode_style(mouths(opening.astype(np.float32)), np.ones(100, np.bool_), models.basis, models)


@pytest.fixture(scope="session")
def clips() -> Clips:
    return in_memory([made_clip(index) for index in range(6)])


@pytest.fixture(scope="session")
def person(models: MotionModels) -> Style:
    return encode_head_style(Footage(talking(), np.ones(FRAMES, np.bool_), head_poses(FRAMES)), models)


@pytest.fixture(scope="session")
def portrait(models: MotionModels) -> Style:
    return encode_head_style(Footage(talking(1), np.ones(1, np.bool_), head_poses(1)), models)
