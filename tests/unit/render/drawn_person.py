"""The drawn person of conftest.py as an identity on the default face model."""

from __future__ import annotations

import numpy as np

from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import FaceIdentity
from services.common.geometry.lighting import ambient
from services.common.geometry.morphable_model import default_model


def person() -> FaceIdentity:
    """The mean face, with a texture of skin."""
    model = default_model()
    texture = np.full((64, 64, 3), (190, 145, 120), np.uint8)
    texture[::4] -= 20
    return FaceIdentity(
        model=model.name,
        model_digest=model.digest,
        identity=np.zeros(model.num_identity, np.float32),
        offset=np.zeros((model.num_vertices, 3), np.float32),
        albedo=np.zeros(model.num_albedo, np.float32),
        light=ambient(),
        texture=texture,
        seen=np.full((64, 64), 255, np.uint8),
        num_frames=1,
        landmark_error=0.0,
        photometric_error=0.0,
    )


def drawing() -> IdentityDrawing:
    """Return the drawing of this person."""
    return IdentityDrawing(person(), default_model())
