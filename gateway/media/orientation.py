"""Maps between the coded frame and the shown frame: rotation, mirror and the shape of the pixels.

Trackers and networks see the upright picture with square pixels. Compositing works on coded samples. An affine map of pixel centres
(x right, y down, the first pixel's centre at 0, 0) links the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from services.common.array_types import Float64, UInt8

SQUARE_TOLERANCE: Final = Fraction(8, 100)
"""Sample aspects within this of 1 are taken as square: resampling would cost more than the stretch does."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a coded picture is shown.

    Attributes:
        width, height: size of the coded picture, samples.
        quarter_turns: counter-clockwise quarter turns from coded to upright, 0 to 3.
        mirrored: whether the coded picture is mirrored left to right before the turn.
        sample_aspect: width over height of a coded sample; 1: square.
        display_matrix: the nine numbers of the container's display matrix, which the output gets unchanged; None: there is none.
    """

    width: int
    height: int
    quarter_turns: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height of the coded picture, stretched to square pixels: the shorter side of a sample grows."""
        aspect = self.sample_aspect
        if aspect <= 0 or abs(aspect - 1) <= SQUARE_TOLERANCE:
            return self.width, self.height
        if aspect > 1:
            return round(self.width * aspect), self.height
        return self.width, round(self.height / aspect)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright picture, pixels."""
        width, height = self.square_size
        return (height, width) if self.quarter_turns % 2 else (width, height)

    @property
    def coded_from_upright(self) -> Float64:
        """Affine map upright pixels -> coded luma samples, float64 [2, 3]."""
        width, height = self.square_size
        linear, offset = {
            0: ([[1, 0], [0, 1]], [0, 0]),
            1: ([[0, -1], [1, 0]], [width - 1, 0]),
            2: ([[-1, 0], [0, -1]], [width - 1, height - 1]),
            3: ([[0, 1], [-1, 0]], [0, height - 1]),
        }[self.quarter_turns]
        affine = np.column_stack([np.array(linear, np.float64), np.array(offset, np.float64)])
        if self.mirrored:
            affine[0] = np.array([0.0, 0.0, width - 1.0]) - affine[0]
        for axis, (square, coded) in enumerate(((width, self.width), (height, self.height))):
            affine[axis, :2] *= coded / square
            affine[axis, 2] = (affine[axis, 2] + 0.5) * coded / square - 0.5
        return affine

    @property
    def upright_from_coded(self) -> Float64:
        """Affine map coded luma samples -> upright pixels, float64 [2, 3]."""
        affine = self.coded_from_upright
        linear = np.linalg.inv(affine[:, :2])
        return np.column_stack([linear, -linear @ affine[:, 2]])

    def upright(self, coded: UInt8) -> UInt8:
        """Return a coded picture [height, width, 3] upright. If nothing is to be done, the same array is returned."""
        # Here and not above: the process that inspects a file turns no picture, and starts a quarter faster without OpenCV.
        import cv2

        picture = coded
        if self.square_size != (self.width, self.height):
            picture = np.asarray(cv2.resize(picture, self.square_size, interpolation=cv2.INTER_LINEAR), np.uint8)
        if self.mirrored:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        if self.quarter_turns:
            code = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}[self.quarter_turns]
            picture = np.asarray(cv2.rotate(picture, code), np.uint8)
        return picture


def orientation(width: int, height: int, sample_aspect: Fraction | None, display_matrix: tuple[int, ...] | None) -> Orientation:
    """Return the orientation for a display matrix (FFmpeg's layout: a, b, u, c, d, v, x, y, w in 16.16), to the nearest quarter
    turn and mirror.

    The matrix takes a coded point (x, y), y down, to (a x + c y, b x + d y) on the screen.
    """
    turns, mirrored = 0, False
    if display_matrix is not None:
        a, b, c, d = display_matrix[0], display_matrix[1], display_matrix[3], display_matrix[4]
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        # The image of the x axis is (a, b), y down: its angle on the screen, counter-clockwise, is atan2(-b, a).
        turns = round(float(np.degrees(np.arctan2(-b, a))) / 90.0) % 4
    aspect = sample_aspect if sample_aspect is not None and sample_aspect > 0 else Fraction(1)
    return Orientation(width, height, turns, mirrored, aspect, display_matrix)
