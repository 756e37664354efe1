"""Shading of triangle meshes: lighting by spherical harmonics, and the normals that it shades.

Lighting has three bands: 9 coefficients per colour channel, 27 in all. The coefficients describe the environment's radiance L_lm in
**camera axes** (x right, y down, z away from the camera). Lambertian reflection keeps bands 0, 1 and 2, with weights A_l = pi,
2 pi / 3 and pi / 4 (Ramamoorthi and Hanrahan 2001). A diffuse surface divides by pi:

    shading(n) = sum_lm (A_l / pi) L_lm Y_lm(n),        colour = albedo * shading

A uniform environment of radiance 1 (`ambient()`) therefore shades everything with 1. The formula is
C(n, t, gamma) = t sum_b gamma_b Phi_b(n) of Yi et al., Sec. 3.1, with Phi_b = A_l Y_b / pi. Colours are RGB in [0, 1] as displayed
(gamma not undone), as in the papers. Normals are in camera axes: turn a model's normals by the camera's rotation first.

Light and albedo are known only up to one factor per channel. `normalise_light` moves the factor into the albedo.

Normals need no scatter operation: every vertex sums the faces that a table lists. The table is made once per mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int32
from services.common.geometry.arrays import Array, constant, gather, normalised

NUM_COEFFICIENTS: Final = 9
"""Coefficients per colour channel: (l, m) = (0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)."""
BAND_OF: Final = (0, 1, 1, 1, 2, 2, 2, 2, 2)
IRRADIANCE: Final = (np.pi, 2.0 * np.pi / 3.0, np.pi / 4.0)
"""A_l: factor of a Lambertian surface for each band of radiance."""

_Y0: Final = 0.5 * np.sqrt(1.0 / np.pi)
_Y1: Final = np.sqrt(3.0 / (4.0 * np.pi))
_Y2: Final = 0.5 * np.sqrt(15.0 / np.pi)
_Y20: Final = 0.25 * np.sqrt(5.0 / np.pi)


@dataclass(frozen=True, slots=True)
class LightAndAlbedo:
    """Light whose mean shading over the visible half of the sphere is 1, and the albedo multiplied by the light's former mean.

    Attributes:
        light: [..., 9, 3], radiance coefficients.
        albedo: [..., V, 3], RGB.
    """

    light: Array
    albedo: Array


def harmonics(normals: Array) -> Array:
    """Return the real orthonormal spherical harmonics Y_lm of unit vectors, [..., 3] to [..., 9]."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    values = [
        np.ones_like(x) * _Y0,
        _Y1 * y, _Y1 * z, _Y1 * x,
        _Y2 * x * y, _Y2 * y * z, _Y20 * (3.0 * z * z - 1.0), _Y2 * x * z, 0.5 * _Y2 * (x * x - y * y),
    ]  # fmt: skip
    return np.stack(values, -1)


def shading_basis(normals: Array) -> Array:
    """Return Phi_b(n) = A_l / pi * Y_lm(n) for unit normals, [..., 3] to [..., 9]."""
    return harmonics(normals) * constant([IRRADIANCE[band] / np.pi for band in BAND_OF], normals)


def shading(normals: Array, light: Array) -> Array:
    """Return the RGB shading [..., V, 3] of unit normals [..., V, 3] in camera axes by `light` [..., 9, 3]; can be negative."""
    return shading_basis(normals) @ light


def ambient() -> Float32:
    """Return the light of a uniform environment of radiance 1, float32 [9, 3]: shading = 1 everywhere."""
    light = np.zeros((NUM_COEFFICIENTS, 3), np.float32)
    light[0] = 1.0 / _Y0
    return light


def estimate_light(colours: Array, albedo: Array, normals: Array, weights: Array | None = None, *, ridge: float = 1e-3) -> Array:
    """Return the light [..., 9, 3] that best explains colours = albedo * shading (least squares), for any leading axes.

    Args:
        colours: [..., V, 3] RGB.
        albedo: [..., V, 3].
        normals: [..., V, 3], unit, camera axes.
        weights: [..., V], 0 for hidden vertices; None: 1 for each.
        ridge: weight that pulls bands 1 and 2 towards zero, as a share of the mean of the normal equations' diagonal. The normals
            of a face cover only half a sphere, so that without a ridge the bands could not be told apart.
    """
    basis = shading_basis(normals)
    # Each channel has one weighted system: rows albedo * basis, right-hand side colours.
    rows = albedo.mT[..., :, :, None] * basis[..., None, :, :]
    weighted = rows if weights is None else rows * weights[..., None, :, None]
    normal = weighted.mT @ rows
    right = (weighted.mT @ colours.mT[..., :, :, None])[..., 0]
    diagonal = np.diagonal(normal, 0, -2, -1).mean(-1)
    damping = constant(np.diag([0.0 if band == 0 else 1.0 for band in BAND_OF] + np.full(9, 1e-9)), colours)
    solved = np.linalg.solve(normal + (ridge * diagonal)[..., None, None] * damping, right[..., None])[..., 0]
    return solved.mT


def mean_shading(light: Array) -> Array:
    """Return the mean shading over the half of the sphere that faces the camera (z < 0), [..., 9, 3] to [..., 3]."""
    weights = np.zeros(NUM_COEFFICIENTS)
    # The means of Y_00 and Y_10 over the half sphere are Y0 and -Y1 / 2. The means of band 2 over any half sphere are 0.
    weights[0] = _Y0
    weights[2] = -0.5 * _Y1 * IRRADIANCE[1] / np.pi
    row = constant(weights, light)
    return row @ light


def normalise_light(light: Array, albedo: Array) -> LightAndAlbedo:
    """Move the common factor of light [..., 9, 3] and albedo [..., V, 3] into the albedo. Their product does not change."""
    factor = mean_shading(light)[..., None, :]
    return LightAndAlbedo(light / factor, albedo * factor)


def vertex_face_table(triangles: Int32, num_vertices: int) -> Int32:
    """Return the faces around each vertex, int32 [V, D], where D is the largest number of faces at one vertex.

    F (one past the last face) fills the unused columns of a row.

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
    a, b, c = (gather(vertices, triangles[:, i]) for i in range(3))
    u, v = b - a, c - a
    return np.stack(
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
    around = vertex_face_table(triangles, vertices.shape[-2]) if table is None else table
    faces = face_normals(vertices, triangles)
    padded = np.concatenate([faces, np.zeros_like(faces[..., :1, :])], -2)
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
