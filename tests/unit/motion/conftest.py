"""The committed networks, loaded once, and the style of a made-up person."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.models import MotionModels
from services.motion.style import Style, encode_style
from tests.unit.motion.synthesised import mouths


@pytest.fixture(scope="session")
def models() -> MotionModels:
    return MotionModels()


@pytest.fixture(scope="session")
def style(models: MotionModels) -> Style:
    opening = 5.0 + 4.0 * np.sin(np.arange(100) * 0.7)
    return encode_style(mouths(opening.astype(np.float32)), np.ones(100, np.bool_), models.basis, models)
