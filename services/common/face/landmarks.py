"""Named points of MediaPipe's 478-point face mesh, and the 216-point layout of landmark methods.

Left and right are the subject's: the right eye has the smaller x.

The 216-point layout has 99 points of the upper face and 117 points of lips and jaw.

"Towards Realistic Visual Dubbing with Heterogeneous Sources" (Xie et al. 2021), Sec. 3.1, describes a face by 216 landmarks of
contour, brows, eyes, nose and lips. Speech hardly moves the points of the upper part ("pose landmarks"). Speech decides the
points of the lower part. The paper does not list its points, so this module chooses them on MediaPipe's 478-point mesh:

    upper   17 contour from ear to ear over the forehead, 20 brows, 32 eyes, 30 nose   vertices of the mesh
    lower   40 outer lips, 40 inner lips, 37 jaw                           59 vertices, and the middles between neighbours

The lower part is a linear function of the 59 mouth-area landmarks (MOUTH_AREA), which all motion messages carry: a middle
is the mean of two neighbours on a contour, half-way along an edge of the mesh.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32

NUM_LANDMARKS: Final = 478
"""Landmarks of MediaPipe's refined face mesh: 468 mesh vertices and two irises of five points."""

LIPS_OUTER: Final[tuple[int, ...]] = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409,  # upper border, right corner to left corner
    291, 375, 321, 405, 314, 17, 84, 181, 91, 146,  # lower border, left corner to right corner
)  # fmt: skip
LIPS_INNER: Final[tuple[int, ...]] = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)  # fmt: skip
JAW: Final[tuple[int, ...]] = (
    132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 93, 323,
)  # fmt: skip
"""Nineteen points of the jaw line. The first 17 run from the subject's right ear over the chin (152) to the left; 93 and 323
close both ends above them."""

MOUTH_AREA: Final[tuple[int, ...]] = LIPS_OUTER + LIPS_INNER + JAW
"""The 59 mouth-area landmarks: 40 lip and 19 jaw points (Song et al. use 20 + 19 points of a 106-point layout)."""
NUM_MOUTH_AREA: Final = len(MOUTH_AREA)
NUM_LIPS: Final = len(LIPS_OUTER) + len(LIPS_INNER)

INNER_UPPER_MIDDLE: Final[tuple[int, ...]] = (81, 82, 13, 312, 311)
INNER_LOWER_MIDDLE: Final[tuple[int, ...]] = (178, 87, 14, 317, 402)
"""Facing points of the middle of the inner lips. The mean of their five distances is the mouth opening."""
LIP_CORNERS: Final[tuple[int, int]] = (61, 291)

_PARTED_PX: Final = 4.0
"""Opening from which on a mouth shows an inside, head-space pixels."""
_GLIMPSES: Final = 0.02
"""Share of the frames in which the tracker may see an opening by mistake."""
_LOWER_LIP_SHARE: Final = 0.7
"""Share of the gap that the lower lip closes when a mouth shuts."""
_INNER_UPPER: Final = len(LIPS_OUTER) + np.arange(1, len(LIPS_INNER) // 2)
_INNER_LOWER: Final = len(LIPS_OUTER) + np.arange(len(LIPS_INNER) - 1, len(LIPS_INNER) // 2, -1)
"""Rows of the facing points of the inner lips in MOUTH_AREA, from the right corner to the left corner, without the corners."""

STABLE: Final[tuple[int, ...]] = (
    33, 133, 362, 263,  # eye corners
    168, 6, 197, 195,  # bridge of the nose
    10, 109, 338, 67, 297, 103, 332, 151, 9, 8,  # forehead
    54, 284, 21, 251, 162, 389, 127, 356,  # temples
    193, 417, 5, 4, 1,  # root, back and tip of the nose
    234, 454,  # in front of the ears
)  # fmt: skip
"""Points that speech does not move. The head pose is fitted on these alone, so that the pose does not follow the mouth."""

RIGHT_EYE_LIDS: Final[tuple[tuple[int, int], ...]] = ((160, 144), (159, 145), (158, 153))
LEFT_EYE_LIDS: Final[tuple[tuple[int, int], ...]] = ((385, 380), (386, 374), (387, 373))
RIGHT_EYE_CORNERS: Final = (33, 133)
LEFT_EYE_CORNERS: Final = (362, 263)
NOSE_BASE: Final[tuple[int, ...]] = (98, 97, 2, 326, 327)
CHEEKS: Final[tuple[int, ...]] = (205, 50, 187, 147, 213, 425, 280, 411, 376, 433)
FACE_OVAL: Final[tuple[int, ...]] = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip

_POSITION = {index: position for position, index in enumerate(MOUTH_AREA)}
UPPER_CONTOUR: Final[tuple[int, ...]] = (234, 127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356, 454)
"""From the subject's right ear over the forehead to the left ear."""
BROWS: Final[tuple[int, ...]] = (
    70, 63, 105, 66, 107, 46, 53, 52, 65, 55,  # right: upper border, lower border
    300, 293, 334, 296, 336, 276, 283, 282, 295, 285,
)  # fmt: skip
EYES: Final[tuple[int, ...]] = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,  # right: lower lid, upper lid
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)  # fmt: skip
NOSE: Final[tuple[int, ...]] = (
    168, 6, 197, 195, 5, 4, 1, 19, 94, 2,  # root, bridge, tip, base
    98, 97, 326, 327,  # base of the wings
    64, 48, 115, 294, 278, 344,  # wings
    193, 196, 3, 51, 45, 417, 419, 248, 281, 275,  # sides of the bridge
)  # fmt: skip
UPPER: Final[tuple[int, ...]] = UPPER_CONTOUR + BROWS + EYES + NOSE
"""The pose landmarks: vertices of the mesh in the order of the layout."""
NUM_UPPER: Final = len(UPPER)
_RIGHT_END, _LEFT_END = JAW[17:]
JAW_LINE: Final[tuple[int, ...]] = (_RIGHT_END, *JAW[:17], _LEFT_END)
"""The nineteen jaw points in the order of the contour, from the subject's right ear over the chin to the left ear."""
NUM_DENSE_LIPS: Final = 2 * NUM_LIPS


def mouth_area_positions(indices: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """Return the positions of mesh indices in the 59-point mouth-area order.

    Raises:
        KeyError: an index is not in MOUTH_AREA.
    """
    return np.array([_POSITION[index] for index in indices], dtype=np.intp)


def mouth_opening(mouth_landmarks: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the mean distance of the five facing pairs of inner-lip points.

    Args:
        mouth_landmarks: float [..., 59, D], mouth-area landmarks, D >= 2. The first two coordinates count.

    Returns:
        float32 [...]: the opening, in the unit of the input.
    """
    upper = mouth_landmarks[..., mouth_area_positions(INNER_UPPER_MIDDLE), :2]
    lower = mouth_landmarks[..., mouth_area_positions(INNER_LOWER_MIDDLE), :2]
    return np.asarray(np.linalg.norm(lower - upper, axis=-1).mean(axis=-1), dtype=np.float32)


def never_open(mouth_landmarks: npt.NDArray[np.floating]) -> bool:
    """Return whether a person is never seen with an open mouth: at most one of fifty frames has lips further apart than 4 px.

    Nothing can be learned from such frames about how the person speaks, or about the inside of the mouth.

    Args:
        mouth_landmarks: float [T, 59, 3], head space, T >= 1.
    """
    return bool(np.quantile(mouth_opening(mouth_landmarks), 1.0 - _GLIMPSES) <= _PARTED_PX)


def lip_width(mouth_landmarks: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the distance of the lip corners, float32 [...]. The input is as in `mouth_opening`."""
    right, left = mouth_area_positions(LIP_CORNERS)
    return np.asarray(np.linalg.norm(mouth_landmarks[..., left, :2] - mouth_landmarks[..., right, :2], axis=-1), dtype=np.float32)


def shut_lips(mouth_landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the same mouth with touching lips: facing points of the inner lips meet, the outer lips and the jaw follow.

    The lower lip comes up by seven tenths of the gap, and the jaw with the lip, the chin most. The upper lip comes down by the
    rest.

    Args:
        mouth_landmarks: float32 [59, 3], head space.

    Returns:
        float32 [59, 3].
    """
    return part_lips(mouth_landmarks, -lip_gaps(mouth_landmarks))


def lip_gaps(mouth_landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the way from each point of the inner upper lip to the facing point of the lower lip, float32 [9, 3], head space.

    Args:
        mouth_landmarks: float32 [59, 3], head space.
    """
    return mouth_landmarks[_INNER_LOWER] - mouth_landmarks[_INNER_UPPER]


def part_lips(mouth_landmarks: npt.NDArray[np.float32], gaps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the same mouth with lips that are further apart by `gaps`; lips and jaw share the way as in `shut_lips`.

    Args:
        mouth_landmarks: float32 [59, 3], head space.
        gaps: float32 [9, 3], as `lip_gaps` gives them.

    Returns:
        float32 [59, 3].
    """
    parted = mouth_landmarks.copy()
    for to_outer in (0, len(LIPS_OUTER)):
        parted[_INNER_UPPER - to_outer] -= (1.0 - _LOWER_LIP_SHARE) * gaps
        parted[_INNER_LOWER - to_outer] += _LOWER_LIP_SHARE * gaps
    jaw = mouth_landmarks[NUM_LIPS:]
    height = jaw[:, 1] - jaw[:, 1].min()
    parted[NUM_LIPS:] += _LOWER_LIP_SHARE * gaps[len(gaps) // 2] * (height / max(float(height.max()), 1e-6))[:, None]
    return parted


def pose_landmarks(landmarks: Float32) -> Float32:
    """Return the points of the upper part of meshes, float32 [..., 478, D] -> [..., 99, D]."""
    return landmarks[..., list(UPPER), :]


def _lower_matrix() -> Float32:
    """Return the weights of the 59 mouth-area landmarks in each lower point, float32 [117, 59]."""
    position = {index: number for number, index in enumerate(MOUTH_AREA)}
    rows = []
    for contour, closed in ((LIPS_OUTER, True), (LIPS_INNER, True), (JAW_LINE, False)):
        following = (*contour[1:], contour[0]) if closed else contour[1:]
        for number, index in enumerate(contour):
            rows.append({position[index]: 1.0})
            if number < len(following):
                rows.append({position[index]: 0.5, position[following[number]]: 0.5})
    matrix = np.zeros((len(rows), NUM_MOUTH_AREA), np.float32)
    for row, weights in enumerate(rows):
        for column, weight in weights.items():
            matrix[row, column] = weight
    return matrix


LOWER_OF_MOUTH: Final = _lower_matrix()
"""float32 [117, 59]: the lower part is LOWER_OF_MOUTH @ mouth-area landmarks."""


def lower_face(mouth_landmarks: Float32) -> Float32:
    """Return the lower part of the layout, float32 [..., 59, D] -> [..., 117, D]: 40 outer lips, 40 inner lips, 37 jaw."""
    return np.asarray(LOWER_OF_MOUTH @ mouth_landmarks, np.float32)
