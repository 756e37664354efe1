"""People of the default face model."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.common.face.identity import FaceIdentity
from services.common.geometry.lighting import ambient
from services.common.geometry.morphable_model import default_model


def mean_person(**changes: Any) -> FaceIdentity:
    """Return the mean person in ambient light, with a grey texture that was seen everywhere. `changes` are other fields."""
    model = default_model()
    fields: dict[str, Any] = {
        "model": model.name,
        "model_digest": model.digest,
        "identity": np.zeros(model.num_identity, np.float32),
        "offset": np.zeros((model.num_vertices, 3), np.float32),
        "albedo": np.zeros(model.num_albedo, np.float32),
        "light": ambient(),
        "texture": np.full((32, 32, 3), 150, np.uint8),
        "seen": np.full((32, 32), 255, np.uint8),
        "num_frames": 1,
        "landmark_error": 0.0,
        "photometric_error": 0.0,
    }
    return FaceIdentity(**fields | changes)
