"""Styles of a made-up person."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.models import MotionModels
from services.motion.predictors.headpose.predictor import encode_head_style
from services.motion.style import Style
from services.motion.types import Footage
from tests.unit.motion.predictors.headpose.person import FRAMES, talking
from tests.unit.motion.synthesised import head_poses


@pytest.fixture(scope="module")
def person(models: MotionModels) -> Style:
    return encode_head_style(Footage(talking(), np.ones(FRAMES, np.bool_), head_poses(FRAMES)), models)


@pytest.fixture(scope="module")
def portrait(models: MotionModels) -> Style:
    return encode_head_style(Footage(talking(1), np.ones(1, np.bool_), head_poses(1)), models)
