from __future__ import annotations

import numpy as np

from research.methods.headpose.mouth_interior import mean_interior, widest
from research.render.people import TrainingPerson
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures
from services.render.renderers.headpose.renderer import LEVEL
from tests.unit.render.renderers.headpose.test_renderer import inside_of


def test_mean_relative_to_lips(bank: MouthBank) -> None:
    """The mean of people is relative to their lips."""
    found = widest(TrainingPerson("drawn", bank))
    assert len(found.pictures) >= 2
    bright = KeyPictures(np.clip(found.pictures.astype(int) * 3 // 2, 0, 255).astype(np.uint8), found.landmarks)
    made = mean_interior([found, bright])
    relative = np.array([40.0, 15.0, 15.0]) / (280 / 3) * LEVEL
    assert np.allclose(inside_of(made.picture, made.landmarks), relative, atol=12)
