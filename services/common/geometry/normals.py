"""Normals of triangle meshes, for numpy and torch.

No scatter operation is needed: every vertex sums the faces that a table lists. The table is made once per mesh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.array_types import Int32
from services.common.geometry.array_module import Array, array_module, gather, normalised


def vertex_face_table(triangles: Int32, num_vertices: int) -> Int32:
    """Return the faces around each vertex, int32 [V, D], where D is the largest number of faces at one vertex.

    F (one past the last face) fills the unused places of a row.

    Args:
        triangles: int32 [F, 3].
        num_vertices: V.
    """
    corners = triangles.reshape(-1)
    order = np.argsort(corners, kind="stable")
    counts = np.bincount(corners, minlength=num_vertices)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slot = np.arange(len(corners)) - np.repeat(starts, counts)
    table = np.full((num_vertices, max(int(counts.max(initial=1)), 1)), len(triangles), np.int32)
    table[corners[order], slot] = order // 3
    return table


def face_normals(vertices: Array, triangles: Int32) -> Array:
    """Return the normals [..., F, 3] of triangles. The length of a normal is twice the triangle's area."""
    xp = array_module(vertices)
    a, b, c = (gather(vertices, triangles[:, i]) for i in range(3))
    u, v = b - a, c - a
    return xp.stack(
        [
            u[..., 1] * v[..., 2] - u[..., 2] * v[..., 1],
            u[..., 2] * v[..., 0] - u[..., 0] * v[..., 2],
            u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0],
        ],
        -1,
    )


def vertex_normals(vertices: Array, triangles: Int32, table: Int32 | None = None) -> Array:
    """Return unit normals [..., V, 3]: the mean of the normals of the faces around each vertex, weighted by area.

    A vertex without faces has the normal zero.

    Args:
        vertices: [..., V, 3].
        triangles: int32 [F, 3].
        table: `vertex_face_table(triangles, V)`; None: made here. Pass the table if one mesh has many shapes.
    """
    xp = array_module(vertices)
    around = vertex_face_table(triangles, vertices.shape[-2]) if table is None else table
    faces = face_normals(vertices, triangles)
    padded = xp.concatenate([faces, xp.zeros_like(faces[..., :1, :])], -2)
    return normalised(gather(padded, around).sum(-2))


def outwards(triangles: npt.NDArray[np.integer[Any]], positions: npt.NDArray[np.floating]) -> Int32:
    """Return triangles int32 [F, 3] whose normals point out of the head.

    If most normals point into the head, all triangles are turned round: files differ in the orientation of triangles.

    Args:
        triangles: int [F, 3].
        positions: float [V, 3], a head or face in head space.
    """
    corners = positions[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # A face is a bowl that is open at the back (+z), so a point behind the middle is inside.
    inside = positions.mean(0) + np.array([0.0, 0.0, 0.5 * float(np.ptp(positions[:, 0]))])
    ordered = np.asarray(triangles, np.int32)
    return ordered if (normals * (corners[:, 0] - inside)).sum() > 0 else np.ascontiguousarray(ordered[:, [0, 2, 1]])
