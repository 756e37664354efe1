"""Footage of a made-up person, and the person's style for `hetero`."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.models import MotionModels
from services.motion.predictors.hetero.predictor import PREDICTOR
from services.motion.style import Style
from services.motion.types import Footage
from tests.unit.motion.predictors.hetero.made import upper_face
from tests.unit.motion.synthesised import mouths


@pytest.fixture(scope="session")
def footage() -> Footage:
    opening = 5.0 + 4.0 * np.sin(np.arange(100) * 0.7)
    return Footage(mouths(opening.astype(np.float32)), np.ones(100, np.bool_), pose_landmarks=upper_face(100))


@pytest.fixture(scope="session")
def person(models: MotionModels, footage: Footage) -> Style:
    return PREDICTOR.encode_style(footage, models)
