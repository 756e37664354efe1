"""The default face model's mesh: triangles, the mirror map and a texture layout for MediaPipe's 468 vertices.

The connectivity comes from `FACEMESH_TESSELATION` in the installed MediaPipe package (Apache-2.0, The MediaPipe Authors), whose
2,556 directed edges are the sides of 852 triangles. The package holds no vertex positions and no texture coordinates. dubstage
takes the positions from the mean head (services/common/face/head_template.npy) and computes the layout here. Additional triangles
close the holes of eyes and mouth and form regions of the model.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import spsolve

from services.common.array_types import Float64, Int32
from services.common.face.landmarks import FACE_OVAL, LIPS_INNER
from services.common.geometry.lighting import outwards

NUM_VERTICES: Final = 468
EYE_RINGS: Final = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
)
"""Borders of the eye openings, each from the eye's right corner over the upper lid and back under the lower lid."""
_STRETCH_ROUNDS: Final = 6


@dataclass(frozen=True, slots=True)
class FaceMeshTopology:
    """Parts of the default model that do not depend on shapes.

    Attributes:
        triangles: int32 [898, 3].
        regions: int32 ids of triangles by name.
        mirror: int32 [468], the vertex on the other side of the face.
        uv: float32 [468, 2].
    """

    triangles: Int32
    regions: dict[str, Int32]
    mirror: Int32
    uv: npt.NDArray[np.float32]


def face_mesh_topology(positions: Float64) -> FaceMeshTopology:
    """Return triangles, regions, mirror map and texture layout of the default model.

    Args:
        positions: float64 [468, 3], the mean head in head space.
    """
    skin = outwards(directed_triangles(), positions)
    mirror = mirror_map(positions)
    eyes = np.concatenate([strip(ring) for ring in EYE_RINGS])
    mouth = strip(LIPS_INNER)
    filled = np.concatenate([skin, outwards(eyes, positions), outwards(mouth, positions)])
    first = len(skin)
    regions = {
        "eyes": np.arange(first, first + len(eyes), dtype=np.int32),
        "mouth_interior": np.arange(first + len(eyes), len(filled), dtype=np.int32),
    }
    return FaceMeshTopology(filled, regions, mirror, texture_layout(filled, positions, mirror))


def directed_triangles() -> Int32:
    """Return the 852 triangles of MediaPipe's tessellation, int32 [852, 3], all turned the same way.

    MediaPipe's source file lists the three directed sides of each triangle one after the other. The set in the module has lost this
    order.
    """
    from mediapipe.python.solutions import face_mesh_connections

    for node in ast.parse(inspect.getsource(face_mesh_connections)).body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "FACEMESH_TESSELATION"
            and isinstance(node.value, ast.Call)
        ):
            sides = np.array(ast.literal_eval(node.value.args[0]), np.int32).reshape(-1, 3, 2)
            if not (sides[:, :, 1] == np.roll(sides[:, :, 0], -1, 1)).all():
                raise ValueError("this MediaPipe lists its tessellation in another order; 0.10.21 is known to work")
            return sides[:, :, 0].copy()
    raise ValueError("this MediaPipe has no FACEMESH_TESSELATION; 0.10.21 is known to work")


def strip(ring: tuple[int, ...]) -> Int32:
    """Return the triangles that close a ring of 2 n points between the two halves, int32 [2 n - 2, 3], all turned the same way.

    Args:
        ring: the points in order. The first point and point n are the corners where the halves meet.
    """
    half = len(ring) // 2
    upper, lower = ring[: half + 1], (ring[0], *reversed(ring[half:]))
    cells = [(upper[i], upper[i + 1], lower[i + 1], lower[i]) for i in range(half)]
    split = [corners for a, b, c, d in cells for corners in ((a, b, c), (a, c, d)) if len(set(corners)) == 3]
    return np.array(split, np.int32)


def mirror_map(positions: Float64) -> Int32:
    """Return for each vertex the vertex on the other side of the face, int32 [V].

    The result is the pairing with the least total distance across the midline. The connectivity is not symmetric: a few
    quadrilaterals beside the eyes are split along different diagonals on the two sides.

    Raises:
        ValueError: the pairing is not an involution, so the positions are not a face.
    """
    distance = np.linalg.norm((positions * [-1.0, 1.0, 1.0])[:, None] - positions[None], axis=-1)
    mirror = np.asarray(linear_sum_assignment(distance + distance.T)[1], np.int32)
    if not (mirror[mirror] == np.arange(len(mirror))).all():
        raise ValueError("left and right of the mesh cannot be told apart")
    return mirror


def texture_layout(triangles: Int32, positions: Float64, mirror: Int32) -> npt.NDArray[np.float32]:
    """Return texture coordinates float32 [V, 2] in [0, 1], u right, v down, without folds.

    The face oval is mapped to a convex border. Every vertex inside is the mean of the neighbours under mean-value weights (Floater
    2003), so the layout cannot fold. The weights are then divided by each vertex's stretch and solved again (Yoshizawa et al.
    2004), so that mouth and nose keep a fair share of the texture.
    """
    border = np.array(FACE_OVAL)
    inner = np.setdiff1d(np.arange(len(positions)), border)
    uv = np.zeros((len(positions), 2))
    uv[border] = _convex_border(positions[border])
    stretch = np.ones(len(positions))
    base = _mean_value_weights(triangles, positions)
    best, best_spread = uv, np.inf
    for _ in range(_STRETCH_ROUNDS):
        weights = csr_array(base.multiply(1.0 / stretch[None, :]))
        rows = weights[inner]
        sums = np.asarray(rows.sum(1)).ravel()
        system = coo_array((sums, (np.arange(len(inner)), np.arange(len(inner))))).tocsr() - rows[:, inner]
        for axis in (0, 1):
            uv[inner, axis] = spsolve(system.tocsc(), rows[:, border] @ uv[border, axis])
        uv = (uv + uv[mirror] * [-1, 1]) / 2
        ratio = _vertex_stretch(triangles, positions, uv)
        spread = float(np.std(np.log(ratio)))
        if spread < best_spread:
            best, best_spread = uv.copy(), spread
        stretch = stretch * np.sqrt(ratio)
    low, high = best.min(0), best.max(0)
    return np.asarray(0.01 + 0.98 * (best - low) / (high - low), np.float32)


def _convex_border(oval: Float64) -> Float64:
    """Return the oval's points on an ellipse of the face's own proportions, by the share of the way round that each has in
    space."""
    steps = np.linalg.norm(np.roll(oval, -1, 0) - oval, axis=1)
    angle = 2 * np.pi * np.concatenate([[0], np.cumsum(steps)[:-1]]) / steps.sum()
    return np.stack([np.sin(angle), -1.25 * np.cos(angle)], -1)


def _mean_value_weights(triangles: Int32, positions: Float64) -> csr_array:
    """Return weights [V, V] of Floater 2003: (tan(a / 2) + tan(b / 2)) / edge length, a and b the angles beside the edge."""
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = (triangles[:, (corner + step) % 3] for step in range(3))
        to_j, to_k = positions[j] - positions[i], positions[k] - positions[i]
        length_j, length_k = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_k, axis=1)
        cosine = (to_j * to_k).sum(1) / (length_j * length_k)
        half = np.sqrt((1 - cosine) / (1 + cosine))
        rows += [i, i]
        columns += [j, k]
        values += [half / length_j, half / length_k]
    shape = (len(positions), len(positions))
    return csr_array(coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape))


def _vertex_stretch(triangles: Int32, positions: Float64, uv: Float64) -> Float64:
    """Return area in space over area in the texture around each vertex, of mean 1 in the logarithm."""
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    in_space = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    in_texture = _areas_2d(uv, triangles)
    space, texture = (np.zeros(len(positions)) for _ in range(2))
    for corner in range(3):
        np.add.at(space, triangles[:, corner], in_space)
        np.add.at(texture, triangles[:, corner], in_texture)
    ratio = space / texture
    return np.asarray(ratio / np.exp(np.log(ratio).mean()))


def _areas_2d(uv: Float64, triangles: Int32) -> Float64:
    a, b, c = (uv[triangles[:, i]] for i in range(3))
    u, v = b - a, c - a
    return np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
