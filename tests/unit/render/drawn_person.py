"""The drawn person of conftest.py as an identity on the default face model."""

from __future__ import annotations

import numpy as np

from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import FaceIdentity
from services.common.geometry.morphable_model import default_model
from tests.unit.common.face.people import mean_person


def person() -> FaceIdentity:
    """The mean face, with a texture of skin."""
    texture = np.full((64, 64, 3), (190, 145, 120), np.uint8)
    texture[::4] -= 20
    return mean_person(texture=texture, seen=np.full((64, 64), 255, np.uint8))


def drawing() -> IdentityDrawing:
    """Return the drawing of this person."""
    return IdentityDrawing(person(), default_model())
