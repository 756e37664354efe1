"""The Basel Face Model 2017 (Gerig et al. 2018): model2017-1_face12_nomouth.h5, model2017-1_bfm_nomouth.h5, and the files of 2019.

Licence: non-commercial research only, after registration with the University of Basel (faces.dmi.unibas.ch). dubstage
ships no part of the model. Users load their own file under its licence.

The groups shape, expression and color each have model/mean [3V], model/pcaBasis [3V, K] and model/pcaVariance [K], in millimetres
with y up, and colours in [0, 1]. shape/representer/cells is [3, F]. metadata/landmarks/json names points of the mean shape. Named
points with a clear place in the face mesh become landmarks. Users can give 68 vertex numbers instead.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.correspondences import align_to_head_space, landmark_sets_of_68
from services.common.face.loaders.files import FIELD, basis_of, read_sixty_eight, reading, turned, vertices_of
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.normals import outwards

LICENCE: Final = (
    "Basel Face Model 2017, (c) University of Basel; the user's own copy, non-commercial research (faces.dmi.unibas.ch)"
)
REMEDY: Final = "give model2017-1_face12_nomouth.h5 (or another .h5) of the Basel Face Model 2017"
NAMED_LANDMARKS: Final[dict[str, int]] = {
    "right.eye.corner_outer": 33,
    "right.eye.corner_inner": 133,
    "left.eye.corner_inner": 362,
    "left.eye.corner_outer": 263,
    "center.nose.tip": 1,
    "center.nose.attachement_to_philtrum": 2,
    "right.lips.corner": 61,
    "left.lips.corner": 291,
    "center.lips.upper.outer": 0,
    "center.lips.upper.inner": 13,
    "center.lips.lower.inner": 14,
    "center.lips.lower.outer": 17,
    "center.chin.tip": 152,
}
"""Named points in the file, and the same points in MediaPipe's mesh. Right is the subject's right, at the image's left."""


def load_bfm2017(
    path: Path, *, landmarks: Path | None = None, identity: int = 199, expression: int = 100, albedo: int = 199
) -> MorphableModel:
    """Return the model. The model is in head space if the file names landmarks or `landmarks` is given.

    Args:
        path: the .h5 file.
        landmarks: 68 vertex numbers from 0 (JSON or text) instead of the file's own landmarks.
        identity: number of identity coefficients to keep, at most 199.
        expression: number of expression coefficients to keep, at most 100.
        albedo: number of albedo coefficients to keep, at most 199.

    Raises:
        InvalidRequest: the file is missing, of another kind, or damaged, or h5py is not installed.
    """
    with reading(path, "Basel Face Model 2017", REMEDY):
        try:
            import h5py
        except ImportError as error:
            raise InvalidRequest("the Basel Face Model 2017 needs h5py: install dubstage-suite[models3d]", field=FIELD) from error
        with h5py.File(path, "r") as file:
            mean, shape_basis = _linear(file, "shape", identity)
            moved, expression_basis = _linear(file, "expression", expression)
            colour, colour_basis = _linear(file, "color", albedo)
            triangles = np.asarray(file["shape/representer/cells"], np.int64)
            named = _named_landmarks(file)
        positions = turned(mean + moved)
        model = MorphableModel(
            name=path.stem,
            licence=LICENCE,
            unit="millimetre",
            mean_shape=positions,
            identity_basis=turned(shape_basis),
            expression_basis=turned(expression_basis),
            identity_deviation=np.ones(shape_basis.shape[-1], np.float32),
            expression_deviation=np.ones(expression_basis.shape[-1], np.float32),
            triangles=outwards(triangles.T if triangles.shape[0] == 3 and triangles.shape[1] != 3 else triangles, positions),
            albedo_mean=colour,
            albedo_basis=colour_basis,
            albedo_deviation=np.ones(colour_basis.shape[-1], np.float32),
        )
    if landmarks is not None:
        model = dataclasses.replace(model, landmarks=landmark_sets_of_68(read_sixty_eight(landmarks, model.num_vertices)))
    elif len(named) >= 4:
        places = np.array(list(named.values()))
        nearest = np.linalg.norm(mean[None] - places[:, None], axis=-1).argmin(1)
        numbers = [NAMED_LANDMARKS[name] for name in named]
        model = dataclasses.replace(model, landmarks=MappingProxyType({"mediapipe": LandmarkSet.of_vertices(nearest, numbers)}))
    return align_to_head_space(model) if model.landmarks else model


def _linear(file: Any, group: str, keep: int) -> tuple[Float32, Float32]:
    """Return the mean [V, 3] and the basis [V, 3, K], in standard deviations, of one of the file's three models."""
    mean, basis, variance = (_dataset(file, f"{group}/model/{part}") for part in ("mean", "pcaBasis", "pcaVariance"))
    return vertices_of(mean), basis_of(basis[:, :keep], np.sqrt(variance.reshape(-1)[:keep]))


def _dataset(file: Any, key: str) -> Float32:
    if key not in file:
        raise KeyError(key)
    return np.asarray(file[key], np.float32)


def _named_landmarks(file: Any) -> dict[str, list[float]]:
    """Return the file's landmarks that NAMED_LANDMARKS knows, with positions on the mean shape in millimetres."""
    if "metadata/landmarks/json" not in file:
        return {}
    text = np.asarray(file["metadata/landmarks/json"]).reshape(-1)[0]
    found = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    return {item["id"]: item["coordinates"] for item in found if item["id"] in NAMED_LANDMARKS}
