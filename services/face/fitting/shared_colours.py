"""Stages 1 and 2 of the three-stage fit on the held frames of one person, as a PhotometricFit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, UInt8
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.rasterise import Backend
from services.face.fitting.model_landmarks import ModelLandmarks
from services.face.fitting.person import ClipFit
from services.face.fitting.photometric import PhotometricFit
from services.face.fitting.surface import surface_of
from services.face.fitting.three_stage import CropFit, ThreeStageFit


def fit_shared_colours(
    face: ModelLandmarks,
    clip: ClipFit,
    landmarks: Float64,
    crops: UInt8,
    still_wanted: Callable[[], None] = lambda: None,
    *,
    backend: Backend = "numba",
) -> tuple[npt.NDArray[np.intp], PhotometricFit]:
    """Return the rows of the frames of stage 2, and their fit. The clip's fit to landmarks is stage 1, which fixes the shape.

    Args:
        face: the model's landmarks.
        clip: fit of T frames to landmarks, cameras in crop pixels.
        landmarks: [T, N, 3], crop pixels.
        crops: uint8 [T, 256, 256, 3], RGB.
        still_wanted: called before each step. An exception from the call stops the fit.
        backend: rasteriser.

    Raises:
        InvalidRequest: the model has no albedo.
    """
    person, camera = clip.person, clip.frames.poses()
    fit = ThreeStageFit(face, surface_of(face.model), person.identity, person.offset, backend=backend)
    given = [
        CropFit(crop, points, expression, float(scale), rotation, place[:2])
        for crop, points, expression, scale, rotation, place in zip(
            crops, landmarks, clip.frames.expression, camera.scale, camera.rotation, camera.translation, strict=True
        )
    ]
    shared = fit.fit_shared(given, still_wanted)
    frames = shared.frames
    return shared.rows, PhotometricFit(
        identity=person.identity,
        albedo=(shared.albedo * face.model.albedo_deviation).astype(np.float32),
        expression=np.stack([frame.expression for frame in frames]),
        camera=WeakPerspective(
            np.array([frame.scale for frame in frames]),
            np.stack([frame.rotation for frame in frames]),
            np.stack([np.append(frame.place, 0.0) for frame in frames]),
        ),
        light=np.stack([frame.light for frame in frames]).astype(np.float32),
        landmark_error=np.array([frame.land for frame in frames], np.float32),
        photometric_error=np.array([frame.photo for frame in frames], np.float32),
    )
