"""How well a person's face model fits what a film shows: a row of pictures a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.reports.types import Float32, Uint8
from services.common.face_drawing import FaceMesh
from services.common.face_identity import FaceIdentity
from services.common.face_sheet import fitting_row
from services.common.geometry.alignment import fit_weak_perspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.default_model import default_model
from services.common.landmarks import STABLE

COLUMNS = ("frame", "mesh", "low-frequency albedo", "detailed albedo", "drawn alone")
"""Of a row (services/common/face_sheet.py)."""


@dataclass(frozen=True, slots=True)
class TrackedPicture:
    """A frame with its face: uint8 [H, W, 3] RGB, and tracked landmarks, float32 [478, 3], its pixels."""

    picture: Uint8 = field(repr=False)
    landmarks: Float32 = field(repr=False)


def fitting_sheet(identity: FaceIdentity, frames: Sequence[TrackedPicture]) -> Uint8 | None:
    """One row of COLUMNS a frame, uint8 [N * 256, 1280, 3]; None where there is no frame, or the identity is of a user's own model.

    Pose and expression are fitted to the landmarks on the person's own neutral face: the pose on points that speech does not move.
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
            for frame, pose, expression in zip(frames, camera.head_poses(), fitted.expression, strict=True)
        ]
    )
