"""The 216-point face layout of landmark methods: 99 points of the upper face, 117 points of lips and jaw.

"Towards Realistic Visual Dubbing with Heterogeneous Sources" (Xie et al. 2021), Sec. 3.1, describes a face by 216 landmarks of
contour, brows, eyes, nose and lips. Speech hardly moves the points of the upper part ("pose landmarks"). Speech decides the points
of the lower part. The paper does not list its points, so this module chooses them on MediaPipe's 478-point mesh:

    upper   17 contour from ear to ear over the forehead, 20 brows, 32 eyes, 30 nose   vertices of the mesh
    lower   40 outer lips, 40 inner lips, 37 jaw                           59 vertices, and the middles between neighbours

The lower part is a linear function of the 59 mouth-area landmarks (landmarks.MOUTH_AREA), which all motion messages carry: a middle
is the mean of two neighbours on a contour, half-way along an edge of the mesh.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import JAW, LIPS_INNER, LIPS_OUTER, MOUTH_AREA, NUM_LIPS, NUM_MOUTH_AREA

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
NUM_DENSE_JAW: Final = 2 * len(JAW) - 1
NUM_LOWER: Final = NUM_DENSE_LIPS + NUM_DENSE_JAW
NUM_LAYOUT: Final = NUM_UPPER + NUM_LOWER


def pose_landmarks(landmarks: Float32) -> Float32:
    """Return the points of the upper part of meshes, float32 [..., 478, D] -> [..., 99, D]."""
    return landmarks[..., list(UPPER), :]


def _lower_matrix() -> Float32:
    """Return the weights of the 59 mouth-area landmarks in each lower point, float32 [117, 59]."""
    position = {index: place for place, index in enumerate(MOUTH_AREA)}
    rows = []
    for contour, closed in ((LIPS_OUTER, True), (LIPS_INNER, True), (JAW_LINE, False)):
        following = (*contour[1:], contour[0]) if closed else contour[1:]
        for place, index in enumerate(contour):
            rows.append({position[index]: 1.0})
            if place < len(following):
                rows.append({position[index]: 0.5, position[following[place]]: 0.5})
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


def mouth_of_lower(lower: Float32) -> Float32:
    """Return the 59 mouth-area landmarks in the lower part of the layout, float32 [..., 117, D] -> [..., 59, D]."""
    return lower[..., LOWER_OF_MOUTH.argmax(axis=0), :]


def layout_points(landmarks: Float32) -> Float32:
    """Return all points of the layout of meshes, float32 [..., 478, D] -> [..., 216, D]: upper part, then lower part."""
    lower = lower_face(landmarks[..., list(MOUTH_AREA), :])
    return np.concatenate([pose_landmarks(landmarks), lower], axis=-2)
