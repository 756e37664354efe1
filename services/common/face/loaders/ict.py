"""The ICT face model of USC's ICT-FaceKit (Li et al. 2020).

The loader reads the folder FaceXModel of OBJ files, or ict_facekit_torch.npy, which was made from the folder.

Licence: MIT (the light model, github.com/USC-ICT/ICT-FaceKit). dubstage ships no part of the model.
Users load their own copy.

The folder holds generic_neutral_mesh.obj, identity000.obj ..., one OBJ per expression, and vertex_indices.json with "expressions"
(names of the expressions, in the order of the coefficients) and "idx_to_landmark_verts" (68 vertices of the iBUG layout). A basis
vector is an OBJ minus the neutral mesh, so an expression coefficient is a blendshape weight (0 to 1) with the prior deviation
EXPRESSION_DEVIATION. Identity coefficients are in standard deviations. By default only the face (vertices 0 to 9,408) is kept,
because a face track has no teeth, eyeballs or neck.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32, Int32
from services.common.face.loaders import files
from services.common.face.loaders.files import (
    align_to_head_space,
    cropped,
    landmark_sets_of_68,
    read_obj,
    read_obj_vertices,
    reading,
    turned,
)
from services.common.geometry.lighting import outwards
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel

LICENCE: Final = "ICT-FaceKit, (c) USC Institute for Creative Technologies, MIT; the user's own copy"
REMEDY: Final = "give the folder FaceXModel of ICT-FaceKit (github.com/USC-ICT/ICT-FaceKit)"
FACE_VERTICES: Final = 9409
"""Number of vertices of the face. The face comes first in the mesh; head and neck, mouth, eyes and teeth follow."""
EXPRESSION_DEVIATION: Final = 0.3
_Parts = tuple[Float32, Int32, Float32, Int32, Float32, Float32]
"""Neutral vertices, triangles, texture coordinates, texture triangles, identity basis and expression basis, all as in the file."""


def load_ict(path: Path) -> MorphableModel:
    """Return the face of the model, without the rest of the head, in head space.

    Args:
        path: the folder FaceXModel, or ict_facekit_torch.npy. The .npy has no landmarks: vertex_indices.json is read from the same
            folder.

    Raises:
        InvalidRequestError: a file is missing, of another kind, or damaged.
    """
    read = _from_folder if path.is_dir() else _from_npy
    neutral, triangles, uv, uv_triangles, identities, expressions = read(path)
    indices = path / "vertex_indices.json" if path.is_dir() else path.with_name("vertex_indices.json")
    with reading(indices, "ICT-FaceKit's vertex_indices.json", REMEDY):
        points = LandmarkSet.of_vertices(json.loads(indices.read_text(encoding="utf-8"))["idx_to_landmark_verts"])
        if len(points) != 68 or points.vertices.max() >= len(neutral):
            raise ValueError(f"its idx_to_landmark_verts are not 68 of {len(neutral)} vertices")
    if len(neutral) > FACE_VERTICES:
        kept = np.arange(FACE_VERTICES)
        inside = (triangles < FACE_VERTICES).all(1)
        uv_triangles = uv_triangles[inside] if len(uv) else uv_triangles
        triangles = cropped(triangles, kept, len(neutral))
        neutral, identities, expressions = neutral[kept], identities[kept], expressions[kept]
    positions = turned(neutral)
    oriented = outwards(triangles, positions)
    turned_round = not np.array_equal(oriented, triangles)
    model = MorphableModel(
        name="ict_facekit",
        licence=LICENCE,
        unit="centimetre",
        mean_shape=positions,
        identity_basis=turned(identities),
        expression_basis=turned(expressions),
        identity_deviation=np.ones(identities.shape[-1], np.float32),
        expression_deviation=np.full(expressions.shape[-1], EXPRESSION_DEVIATION, np.float32),
        triangles=oriented,
        uv=np.stack([uv[:, 0], 1.0 - uv[:, 1]], -1).astype(np.float32),
        uv_triangles=np.ascontiguousarray(uv_triangles[:, [0, 2, 1]]) if turned_round else uv_triangles,
        landmarks=landmark_sets_of_68(points),
    )
    return align_to_head_space(model)


def _from_folder(folder: Path) -> _Parts:
    with reading(folder / "generic_neutral_mesh.obj", "ICT-FaceKit's neutral mesh", REMEDY):
        mesh = read_obj(folder / "generic_neutral_mesh.obj")
    with reading(folder / "vertex_indices.json", "ICT-FaceKit's vertex_indices.json", REMEDY):
        names = json.loads((folder / "vertex_indices.json").read_text(encoding="utf-8"))["expressions"]
    identities = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    shapes = [_offsets(file, mesh.vertices) for file in identities]
    expressions = [_offsets(folder / f"{name}.obj", mesh.vertices) for name in names]
    identity_basis, expression_basis = (_stacked(offsets, mesh.vertices) for offsets in (shapes, expressions))
    return mesh.vertices, mesh.triangles, mesh.uv, mesh.uv_triangles, identity_basis, expression_basis


def _offsets(file: Path, neutral: Float32) -> Float32:
    with reading(file, "shape of ICT-FaceKit", REMEDY):
        vertices = read_obj_vertices(file)
        if vertices.shape != neutral.shape:
            raise ValueError(f"{len(vertices)} vertices instead of {len(neutral)}")
        return np.asarray(vertices - neutral, np.float32)


def _stacked(offsets: list[Float32], neutral: Float32) -> Float32:
    return np.stack(offsets, -1) if offsets else np.zeros((len(neutral), 3, 0), np.float32)


def _from_npy(file: Path) -> _Parts:
    """Return the parts from a .npy dictionary of arrays.

    Modes are [K, V, 3] offsets from the neutral mesh. Faces have three or four corners.
    """
    with reading(file, "ICT-FaceKit's arrays (ict_facekit_torch.npy)", REMEDY):
        content = files.load_npy_object(file)
        neutral = np.asarray(content["neutral_mesh"], np.float32).reshape(-1, 3)
        faces, uv_faces = (np.asarray(content[key], np.int32) for key in ("faces", "uv_faces"))
        uv = np.asarray(content["uv_neutral_mesh"], np.float32).reshape(-1, 2)
        modes = [
            np.ascontiguousarray(np.moveaxis(np.asarray(content[key], np.float32).reshape(-1, len(neutral), 3), 0, -1))
            for key in ("identity_shape_modes", "expression_shape_modes")
        ]
        return neutral, _triangulated(faces), uv, _triangulated(uv_faces), modes[0], modes[1]


def _triangulated(faces: Int32) -> Int32:
    return faces if faces.shape[1] == 3 else np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
