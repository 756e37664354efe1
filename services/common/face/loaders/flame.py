"""FLAME (Li et al. 2017), the face model of Dubbing for Everyone.

The loader reads generic_model.pkl, the .pkl of FLAME 2020 or 2023, or the same arrays as .npz.

Licence: FLAME is copyright Max-Planck-Gesellschaft. The 2017 to 2020 models are for non-commercial scientific research after
registration at flame.is.tue.mpg.de. FLAME 2023 Open is CC BY 4.0. dubstage ships no part of FLAME. Users load their own file
under their licence.

Keys read: v_template [V, 3] (metres, y up), f [F, 3], shapedirs [V, 3, 400] (300 identity, then 100 expression), weights [V, J],
J_regressor [J, V], posedirs [V, 3, 9 (J - 1)]. FLAME's jaw is a joint, and speech moves mostly the jaw. The linear model has the
jaw as **three more expression coefficients: the rotation of the jaw about x, y, z in radians, to first order** (the first opens the
mouth). The error of the first order is 1 - cos(angle) of the lever: 4 % at 0.3 rad. Neck, eyeballs and the head's own pose are left
out, because the camera holds the pose.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from services.common.array_types import Float32, Int32
from services.common.errors import InvalidRequestError
from services.common.face.loaders import files
from services.common.face.loaders.files import (
    FIELD,
    IBUG_68,
    IBUG_INNER_51,
    align_to_head_space,
    mouth_area_of,
    read_obj,
    reading,
    require,
    turned,
)
from services.common.geometry.lighting import outwards
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel
from services.common.geometry.rasterise import sample_texture
from services.common.geometry.rotations import cross_matrix

LICENCE: Final = "FLAME, (c) Max-Planck-Gesellschaft; the user's own copy under its licence (flame.is.tue.mpg.de)"
REMEDY: Final = "give generic_model.pkl (or its arrays as .npz) from flame.is.tue.mpg.de"
KEYS: Final = ("v_template", "f", "shapedirs", "weights", "J_regressor", "posedirs")
NUM_SHAPE: Final = 300
"""Number of columns of shapedirs that are identity."""
NUM_EXPRESSION: Final = 100
"""Number of columns of shapedirs after the identity that are expression."""
JAW: Final = 2
"""Number of the jaw among FLAME's joints: root, neck, jaw, two eyes."""
JAW_DEVIATION: Final = 0.1
"""Prior standard deviation of each jaw angle, radians."""


def load_flame(path: Path, *, landmarks: Path | None = None, texture: Path | None = None) -> MorphableModel:
    """Return FLAME as a linear model, in head space if landmarks are given.

    Three coefficients of the jaw follow the coefficients of the expression.

    Args:
        path: .pkl or .npz.
        landmarks: FLAME's mediapipe_landmark_embedding.npz (105 points, the best choice), flame_static_embedding.pkl (51 points),
            or landmark_embedding.npy (68 points). Without landmarks the model stays in metres and cannot be fitted.
        texture: FLAME_texture.npz (arrays vt and ft: the layout; mean and tex_dir: the albedo), or an .obj of the template, which
            holds only the layout. Without an albedo, colours cannot be fitted and faces cannot be drawn.

    Raises:
        InvalidRequestError: a file is missing, of another kind, or damaged.
    """
    with reading(path, "FLAME model", REMEDY):
        arrays = _read_arrays(path)
        require(arrays, KEYS)
        template = np.asarray(arrays["v_template"], np.float32)
        directions = np.asarray(arrays["shapedirs"], np.float32)
        if (
            template.ndim != 2
            or template.shape[1] != 3
            or directions.shape[:2] != template.shape
            or directions.shape[2] <= NUM_SHAPE
        ):
            raise ValueError(f"v_template {list(template.shape)} and shapedirs {list(directions.shape)} do not go together")
        shown = directions[..., NUM_SHAPE : NUM_SHAPE + NUM_EXPRESSION]
        jaw = jaw_basis(template, arrays)
        positions = turned(template)
        triangles = np.asarray(arrays["f"], np.int64).reshape(-1, 3)
        model = MorphableModel(
            name=path.stem,
            licence=LICENCE,
            unit="metre",
            mean_shape=positions,
            identity_basis=turned(directions[..., :NUM_SHAPE]),
            expression_basis=turned(np.concatenate([shown, jaw], -1)),
            identity_deviation=np.ones(NUM_SHAPE, np.float32),
            expression_deviation=np.array([1.0] * shown.shape[-1] + [JAW_DEVIATION] * 3, np.float32),
            triangles=outwards(triangles, positions),
        )
    if texture is not None:
        model = _with_texture(model, triangles, texture)
    if landmarks is None:
        return model
    sets = _read_embedding(landmarks, triangles)
    return align_to_head_space(dataclasses.replace(model, landmarks=MappingProxyType(sets)))


def jaw_basis(template: Float32, arrays: dict[str, Any]) -> Float32:
    """Return the movement of each vertex per radian of jaw rotation about x, y, z, float32 [V, 3, 3], in FLAME's axes.

    The last axis is the rotation's axis. The value is the derivative at rest of linear blend skinning with pose correctives:
    w_jaw * (axis x (v - joint)) + posedirs * d(R - I).
    """
    weights, joints = np.asarray(arrays["weights"], np.float64), np.asarray(arrays["J_regressor"], np.float64) @ template
    correctives = np.asarray(arrays["posedirs"], np.float64)[..., 9 * (JAW - 1) : 9 * JAW]
    turns = cross_matrix(np.eye(3))
    lever = np.einsum("kij,vj->vik", turns, template - joints[JAW])
    return np.asarray(weights[:, JAW, None, None] * lever + correctives @ turns.reshape(3, 9).T, np.float32)


def _read_arrays(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in KEYS}
    with path.open("rb") as file:
        content = files.load(file)
    if not isinstance(content, dict):
        raise TypeError("the pickle holds no dictionary")
    return content


def _read_embedding(path: Path, triangles: np.ndarray[Any, Any]) -> dict[str, LandmarkSet]:
    """Return the landmark sets in one of FLAME's embedding files, which hold a triangle and barycentric weights per landmark."""
    remedy = "give mediapipe_landmark_embedding.npz, flame_static_embedding.pkl or landmark_embedding.npy"
    with reading(path, "FLAME landmark embedding", remedy):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                content = {key: stored[key] for key in stored.files}
        elif path.suffix == ".npy":
            content = files.load_npy_object(path)
        else:
            with path.open("rb") as file:
                content = files.load(file)
        if "full_lmk_faces_idx" in content:
            faces, weights = content["full_lmk_faces_idx"], content["full_lmk_bary_coords"]
        else:
            faces, weights = content["lmk_face_idx"], content["lmk_b_coords"]
        chosen = triangles[np.asarray(faces, np.int64).reshape(-1)].astype(np.int32)
        share = np.asarray(weights, np.float32).reshape(-1, 3)
        if "landmark_indices" in content:
            points = LandmarkSet(chosen, share, np.asarray(content["landmark_indices"], np.int32).reshape(-1))
            mouth = mouth_area_of(points)
            return {"mediapipe": points} | ({"mouth_area": mouth} if mouth else {})
        if len(chosen) not in (51, 68):
            raise InvalidRequestError(f"{path} has {len(chosen)} landmarks, not 51 or 68 of the iBUG layout", field=FIELD)
        numbers = np.array(IBUG_68, np.int32)[-len(chosen) :]
        points = LandmarkSet(chosen, share, numbers)
        inner = points if len(chosen) == 51 else points.select(IBUG_INNER_51)
        return {"mediapipe": inner} | ({"ibug_68": points} if len(chosen) == 68 else {})


def _with_texture(model: MorphableModel, triangles: np.ndarray[Any, Any], path: Path) -> MorphableModel:
    """Return the model with texture layout and albedo from a file. The file's texture triangles have the order of the model's."""
    with reading(path, "FLAME texture", "give FLAME_texture.npz or the template's .obj"):
        arrays: dict[str, Any] = {}
        if path.suffix == ".obj":
            mesh = read_obj(path)
            uv, corners = mesh.uv, mesh.uv_triangles
        else:
            with np.load(path, allow_pickle=False) as stored:
                uv, corners = np.asarray(stored["vt"], np.float32), np.asarray(stored["ft"], np.int32)
                arrays = {key: np.asarray(stored[key]) for key in ("mean", "tex_dir") if key in stored.files}
        if len(corners) != len(triangles):
            raise InvalidRequestError(f"{path} has {len(corners)} texture triangles, the model has {len(triangles)}", field=FIELD)
        flipped: Int32 = corners if np.array_equal(model.triangles, triangles) else np.ascontiguousarray(corners[:, [0, 2, 1]])
        upright = np.stack([uv[:, 0], 1.0 - uv[:, 1]], -1).astype(np.float32)
        model = dataclasses.replace(model, uv=upright, uv_triangles=np.asarray(flipped, np.int32))
        return _with_albedo(model, arrays["mean"], arrays.get("tex_dir")) if "mean" in arrays else model


def _with_albedo(model: MorphableModel, mean: np.ndarray[Any, Any], directions: np.ndarray[Any, Any] | None) -> MorphableModel:
    """Return the model with the albedo of a texture, read at the vertices.

    Args:
        model: the model with its texture layout.
        mean: [S, S, 3], BGR, 0..255, the file's mean texture; flattened in old files.
        directions: [S, S, 3, A], one standard deviation per coefficient; None: the file has none.
    """
    size = int(np.sqrt(mean.size // 3))
    coordinates = np.zeros((model.num_vertices, 2), np.float32)
    coordinates[model.triangles.reshape(-1)] = model.uv[model.uv_triangles.reshape(-1)]
    # FLAME's texture space stores blue first. A seam's vertex takes the colour of one of its corners.
    albedo = sample_texture(mean.reshape(size, size, 3), coordinates)[:, ::-1] / 255.0
    count = 0 if directions is None else directions.shape[-1]
    basis = np.zeros((model.num_vertices, 3, count), np.float32)
    for column in range(count):
        shown = np.asarray(directions).reshape(size, size, 3, count)[..., column]
        basis[..., column] = sample_texture(shown, coordinates)[:, ::-1] / 255.0
    return dataclasses.replace(
        model,
        albedo_mean=np.ascontiguousarray(albedo, np.float32),
        albedo_basis=basis,
        albedo_deviation=np.ones(count, np.float32),
    )
