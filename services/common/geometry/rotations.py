"""Rotations: matrices, axis-angle vectors and Euler angles, with gradients through torch.

Right-handed, column vectors: rotated = R @ point. Angles in radians. Euler angles are (pitch, yaw, roll) with

    R = Ry(-yaw) @ Rx(pitch) @ Rz(roll)

Yaw and pitch equal `HeadPose.yaw_degrees` and `pitch_degrees` (positive pitch: nose down; positive yaw: nose to the image's
right; positive roll: clockwise on the screen). Roll differs from `HeadPose.roll_degrees` (the tilt of the projected x axis) only
if the head is both turned and nodded. Every function takes numpy arrays or torch tensors with any leading axes and returns the same
kind.
"""

from __future__ import annotations

from services.common.geometry.array_module import Array, array_module, constant, dot

_SMALL = 1e-8
"""Squared angle below which series replace divisions by the angle."""


def matrix_from_axis_angle(vector: Array) -> Array:
    """Return the rotations [..., 3, 3] of axis-angle vectors [..., 3], by Rodrigues' formula. The result is smooth at zero."""
    xp = array_module(vector)
    squared = dot(vector, vector)
    small = squared < _SMALL
    safe = xp.where(small, xp.ones_like(squared), squared)
    angle = xp.sqrt(safe)
    sine = xp.where(small, 1.0 - squared / 6.0, xp.sin(angle) / angle)
    cosine = xp.where(small, 0.5 - squared / 24.0, 2.0 * xp.sin(angle / 2.0) ** 2 / safe)
    skew = cross_matrix(vector)
    identity = constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], vector)
    return identity + sine[..., None, None] * skew + cosine[..., None, None] * (skew @ skew)


def matrix_from_euler(angles: Array) -> Array:
    """Return the rotations [..., 3, 3] of the Euler angles (pitch, yaw, roll) [..., 3]."""
    xp = array_module(angles)
    sin, cos = xp.sin(angles), xp.cos(angles)
    sp, sy, sr = (sin[..., i] for i in range(3))
    cp, cy, cr = (cos[..., i] for i in range(3))
    rows = [
        xp.stack([cy * cr - sy * sp * sr, -cy * sr - sy * sp * cr, -sy * cp], -1),
        xp.stack([cp * sr, cp * cr, -sp], -1),
        xp.stack([sy * cr + cy * sp * sr, -sy * sr + cy * sp * cr, cy * cp], -1),
    ]
    return xp.stack(rows, -2)


def euler_from_matrix(matrix: Array) -> Array:
    """Return the Euler angles (pitch, yaw, roll) [..., 3] of rotations [..., 3, 3], pitch in [-pi/2, pi/2].

    At the poles roll and yaw are not unique.
    """
    xp = array_module(matrix)
    pitch = xp.arctan2(-matrix[..., 1, 2], xp.sqrt(matrix[..., 1, 0] ** 2 + matrix[..., 1, 1] ** 2))
    yaw = xp.arctan2(-matrix[..., 0, 2], matrix[..., 2, 2])
    roll = xp.arctan2(matrix[..., 1, 0], matrix[..., 1, 1])
    return xp.stack([pitch, yaw, roll], -1)


def nearest_rotation(matrix: Array) -> Array:
    """Return the proper rotation nearest to any matrix [..., 3, 3] in the Frobenius norm (Arun et al. 1987)."""
    xp = array_module(matrix)
    u, _, vt = xp.linalg.svd(matrix)
    sign = xp.sign(xp.linalg.det(u @ vt))
    ones = xp.ones_like(sign)
    return (u * xp.stack([ones, ones, sign], -1)[..., None, :]) @ vt


def geodesic_angle(a: Array, b: Array) -> Array:
    """Return the angle [...] between rotations [..., 3, 3], radians in [0, pi].

    The formula is |A - B| = 2 sqrt(2) sin(angle / 2), which keeps digits at small angles where the trace loses digits. The gradient
    is not defined where A = B: use the squared difference of the matrices as a loss.
    """
    xp = array_module(a)
    half_sine = xp.sqrt(((a - b) ** 2).sum((-2, -1)) / 8.0)
    return 2.0 * xp.arcsin(xp.where(half_sine > 1.0, xp.ones_like(half_sine), half_sine))


def cross_matrix(vector: Array) -> Array:
    """Return matrices [..., 3, 3] with M @ x = vector x x (cross product), for vectors [..., 3]."""
    xp = array_module(vector)
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = xp.zeros_like(x)
    return xp.stack([xp.stack([zero, -z, y], -1), xp.stack([z, zero, -x], -1), xp.stack([-y, x, zero], -1)], -2)
