"""Rotations: matrices, axis-angle vectors, Euler angles, quaternions and the 6D form, with gradients through torch.

Right-handed, column vectors: rotated = R @ point. Angles in radians. Euler angles are (pitch, yaw, roll) with

    R = Ry(-yaw) @ Rx(pitch) @ Rz(roll)

which gives exactly `HeadPose.yaw_degrees` and `pitch_degrees` (positive pitch: nose down; positive yaw: nose to the image's
right; positive roll: clockwise on the screen); roll differs from `HeadPose.roll_degrees` (the tilt of the projected x axis) only
where the head is both turned and nodded. Every function takes numpy arrays or torch tensors with any leading axes and answers in
kind.
"""

from __future__ import annotations

from services.common.geometry.array_module import Array, array_module, constant, dot, normalised

_SMALL = 1e-8
"""Squared angle under which series replace divisions by the angle."""


def matrix_from_axis_angle(vector: Array) -> Array:
    """Rodrigues' formula: axis times angle [..., 3] to rotations [..., 3, 3]; smooth at zero."""
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


def axis_angle_from_matrix(matrix: Array) -> Array:
    """Rotations [..., 3, 3] to axis times angle [..., 3], angle in [0, pi]."""
    xp = array_module(matrix)
    quaternion = quaternion_from_matrix(matrix)
    scalar, vector = quaternion[..., 0], quaternion[..., 1:]
    squared = dot(vector, vector)
    small = squared < _SMALL
    length = xp.sqrt(xp.where(small, xp.ones_like(squared), squared))
    factor = xp.where(small, 2.0 + squared / 3.0, 2.0 * xp.arctan2(length, scalar) / length)
    return vector * factor[..., None]


def matrix_from_euler(angles: Array) -> Array:
    """(pitch, yaw, roll) [..., 3] to rotations [..., 3, 3]."""
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
    """Rotations [..., 3, 3] to (pitch, yaw, roll) [..., 3], pitch in [-pi/2, pi/2]; at the poles roll and yaw are not unique."""
    xp = array_module(matrix)
    pitch = xp.arctan2(-matrix[..., 1, 2], xp.sqrt(matrix[..., 1, 0] ** 2 + matrix[..., 1, 1] ** 2))
    yaw = xp.arctan2(-matrix[..., 0, 2], matrix[..., 2, 2])
    roll = xp.arctan2(matrix[..., 1, 0], matrix[..., 1, 1])
    return xp.stack([pitch, yaw, roll], -1)


def matrix_from_quaternion(quaternion: Array) -> Array:
    """Quaternions (w, x, y, z) [..., 4] of any length but zero to rotations [..., 3, 3]."""
    xp = array_module(quaternion)
    w, x, y, z = (normalised(quaternion)[..., i] for i in range(4))
    rows = [
        xp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        xp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        xp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return xp.stack(rows, -2)


def quaternion_from_matrix(matrix: Array) -> Array:
    """Rotations [..., 3, 3] to unit quaternions (w, x, y, z) [..., 4], w >= 0.

    4 q q^T is linear in the matrix; its row with the largest diagonal, brought to length 1, is the quaternion (Shepperd 1978).
    """
    xp = array_module(matrix)
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    ww, xx = 1 + m[0][0] + m[1][1] + m[2][2], 1 + m[0][0] - m[1][1] - m[2][2]
    yy, zz = 1 - m[0][0] + m[1][1] - m[2][2], 1 - m[0][0] - m[1][1] + m[2][2]
    rows = xp.stack([xp.stack(row, -1) for row in ([ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz])], -2)
    best = xp.argmax(xp.stack([ww, xx, yy, zz], -1), -1)
    chosen = constant([0.0, 1.0, 2.0, 3.0], matrix) == best[..., None]
    quaternion = normalised((rows * chosen[..., None]).sum(-2))
    sign = xp.where(quaternion[..., :1] < 0, -xp.ones_like(quaternion[..., :1]), xp.ones_like(quaternion[..., :1]))
    return quaternion * sign


def matrix_from_6d(columns: Array) -> Array:
    """The first two columns of a rotation, made orthonormal, [..., 6] to [..., 3, 3]: continuous everywhere (Zhou et al. 2019)."""
    xp = array_module(columns)
    first = normalised(columns[..., :3])
    second = columns[..., 3:]
    second = normalised(second - dot(first, second)[..., None] * first)
    third = (cross_matrix(first) @ second[..., None])[..., 0]
    return xp.stack([first, second, third], -1)


def six_d_from_matrix(matrix: Array) -> Array:
    """Rotations [..., 3, 3] to their first two columns one behind the other, [..., 6]."""
    xp = array_module(matrix)
    return xp.concatenate([matrix[..., :, 0], matrix[..., :, 1]], -1)


def nearest_rotation(matrix: Array) -> Array:
    """The proper rotation nearest to any matrix [..., 3, 3] in the Frobenius norm (Arun et al. 1987)."""
    xp = array_module(matrix)
    u, _, vt = xp.linalg.svd(matrix)
    sign = xp.sign(xp.linalg.det(u @ vt))
    ones = xp.ones_like(sign)
    return (u * xp.stack([ones, ones, sign], -1)[..., None, :]) @ vt


def geodesic_angle(a: Array, b: Array) -> Array:
    """Angle in radians between rotations [..., 3, 3], in [0, pi], to [...].

    From |A - B| = 2 sqrt(2) sin(angle / 2), which keeps its digits at small angles where the trace loses them. The gradient is
    not defined where A = B: use the squared difference of the matrices as a loss.
    """
    xp = array_module(a)
    half_sine = xp.sqrt(((a - b) ** 2).sum((-2, -1)) / 8.0)
    return 2.0 * xp.arcsin(xp.where(half_sine > 1.0, xp.ones_like(half_sine), half_sine))


def cross_matrix(vector: Array) -> Array:
    """Matrices [..., 3, 3] with M @ x = vector x x (cross product), for vectors [..., 3]."""
    xp = array_module(vector)
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = xp.zeros_like(x)
    return xp.stack([xp.stack([zero, -z, y], -1), xp.stack([z, zero, -x], -1), xp.stack([-y, x, zero], -1)], -2)
