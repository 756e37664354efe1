"""How well a person's face model fits what a film shows: a row of pictures per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import head_poses_of
from services.common.face.drawing import FaceMesh, fitting_row
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import STABLE
from services.common.geometry.alignment import fit_weak_perspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model

COLUMNS = ("frame", "mesh", "low-frequency albedo", "detailed albedo", "drawn alone")
"""Of a row (services/common/face/drawing.py)."""


@dataclass(frozen=True, slots=True)
class TrackedPicture:
    """A frame, uint8 [H, W, 3] RGB, with the tracked landmarks of the face, float32 [478, 3], pixels of the frame."""

    picture: UInt8 = field(repr=False)
    landmarks: Float32 = field(repr=False)


def fitting_sheet(identity: FaceIdentity, frames: Sequence[TrackedPicture]) -> UInt8 | None:
    """Return a sheet with one row of COLUMNS per frame, uint8 [N * 256, 1280, 3].

    None is returned if there is no frame, or if the identity belongs to a morphable model that the user installed. Pose and
    expression are fitted to the landmarks, with the person's own neutral face. The pose is fitted to points that speech does not
    move.
    """
    model = default_model()
    if not frames or (identity.model, identity.model_digest) != (model.name, model.digest):
        return None
    mesh, personal = FaceMesh.of(model), identity.personal(model)
    image: np.ndarray[Any, np.dtype[np.float64]] = np.stack([frame.landmarks[: model.num_vertices] for frame in frames]).astype(
        np.float64
    )
    stable = list(STABLE)
    camera = fit_weak_perspective(personal.mean_shape[stable].astype(np.float64), image[:, stable])
    fitted = coefficients_from_landmarks(personal, image, camera, identity=np.zeros(0))
    return np.concatenate(
        [
            fitting_row(frame.picture, pose, expression, identity, mesh)
            for frame, pose, expression in zip(frames, head_poses_of(camera), fitted.expression, strict=True)
        ]
    )
