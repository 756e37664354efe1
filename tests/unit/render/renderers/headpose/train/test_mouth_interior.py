from __future__ import annotations

import numpy as np

from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures
from services.render.renderers.headpose.mouth_interior import LEVEL
from services.render.renderers.headpose.train.mouth_interior import mean_interior, widest
from services.render.train.people import Person
from tests.unit.render.renderers.headpose.test_mouth_interior import inside_of


def test_the_mean_of_people_is_relative_to_their_lips(bank: MouthBank) -> None:
    found = widest(Person("drawn", bank))
    assert len(found.pictures) >= 2
    bright = KeyPictures(np.clip(found.pictures.astype(int) * 3 // 2, 0, 255).astype(np.uint8), found.landmarks)
    made = mean_interior([found, bright])
    relative = np.array([40.0, 15.0, 15.0]) / (280 / 3) * LEVEL
    assert np.allclose(inside_of(made.picture, made.landmarks), relative, atol=12)
