"""Rotations: matrices, axis-angle vectors and Euler angles.

Right-handed, column vectors: rotated = R @ point. Angles in radians. Euler angles are (pitch, yaw, roll) with

    R = Ry(-yaw) @ Rx(pitch) @ Rz(roll)

Positive pitch: nose down; positive yaw: nose to the image's right; positive roll: clockwise on the screen. `HeadPose` takes the
tilt in the image plane out last, not first: `yaw_degrees` and `pitch_degrees` equal these angles of an upright head, `roll_degrees`
those of a head that is not both turned and nodded. Arrays may have any leading axes.
"""

from __future__ import annotations

import numpy as np

from services.common.geometry.arrays import Array, constant, dot

_SMALL = 1e-8
"""Squared angle below which series replace divisions by the angle."""


def matrix_from_axis_angle(vector: Array) -> Array:
    """Return the rotations [..., 3, 3] of axis-angle vectors [..., 3], by Rodrigues' formula. The result is smooth at zero."""
    squared = dot(vector, vector)
    small = squared < _SMALL
    safe = np.where(small, np.ones_like(squared), squared)
    angle = np.sqrt(safe)
    sine = np.where(small, 1.0 - squared / 6.0, np.sin(angle) / angle)
    cosine = np.where(small, 0.5 - squared / 24.0, 2.0 * np.sin(angle / 2.0) ** 2 / safe)
    skew = cross_matrix(vector)
    identity = constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], vector)
    return identity + sine[..., None, None] * skew + cosine[..., None, None] * (skew @ skew)


def matrix_from_euler(angles: Array) -> Array:
    """Return the rotations [..., 3, 3] of the Euler angles (pitch, yaw, roll) [..., 3]."""
    sin, cos = np.sin(angles), np.cos(angles)
    sp, sy, sr = (sin[..., i] for i in range(3))
    cp, cy, cr = (cos[..., i] for i in range(3))
    rows = [
        np.stack([cy * cr - sy * sp * sr, -cy * sr - sy * sp * cr, -sy * cp], -1),
        np.stack([cp * sr, cp * cr, -sp], -1),
        np.stack([sy * cr + cy * sp * sr, -sy * sr + cy * sp * cr, cy * cp], -1),
    ]
    return np.stack(rows, -2)


def euler_from_matrix(matrix: Array) -> Array:
    """Return the Euler angles (pitch, yaw, roll) [..., 3] of rotations [..., 3, 3], pitch in [-pi/2, pi/2].

    At the poles roll and yaw are not unique.
    """
    pitch = np.arctan2(-matrix[..., 1, 2], np.sqrt(matrix[..., 1, 0] ** 2 + matrix[..., 1, 1] ** 2))
    yaw = np.arctan2(-matrix[..., 0, 2], matrix[..., 2, 2])
    roll = np.arctan2(matrix[..., 1, 0], matrix[..., 1, 1])
    return np.stack([pitch, yaw, roll], -1)


def nearest_rotation(matrix: Array) -> Array:
    """Return the proper rotation nearest to any matrix [..., 3, 3] in the Frobenius norm (Arun et al. 1987)."""
    u, _, vt = np.linalg.svd(matrix)
    sign = np.sign(np.linalg.det(u @ vt))
    ones = np.ones_like(sign)
    return (u * np.stack([ones, ones, sign], -1)[..., None, :]) @ vt


def geodesic_angle(a: Array, b: Array) -> Array:
    """Return the angle [...] between rotations [..., 3, 3], radians in [0, pi].

    The formula is |A - B| = 2 sqrt(2) sin(angle / 2), which keeps digits at small angles where the trace loses digits.
    """
    half_sine = np.sqrt(((a - b) ** 2).sum((-2, -1)) / 8.0)
    return 2.0 * np.arcsin(np.where(half_sine > 1.0, np.ones_like(half_sine), half_sine))


def cross_matrix(vector: Array) -> Array:
    """Return matrices [..., 3, 3] with M @ x = vector x x (cross product), for vectors [..., 3]."""
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = np.zeros_like(x)
    return np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2)
