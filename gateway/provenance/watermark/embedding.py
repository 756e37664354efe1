"""The mark of one film as pictures that are added to the luma of render boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from gateway.provenance.watermark.content import ContentSigns, LastMoments, reduced
from gateway.provenance.watermark.layout import AMPLITUDE, CHIP_S, COLUMNS, PERIOD, ROWS, bump, bumps
from gateway.provenance.watermark.payload import Payload
from gateway.provenance.watermark.spreading import Spreading
from gateway.provenance.watermark.strength import Strength
from services.common.array_types import Float32, Float64, UInt8


class Mark:
    """The mark of one film.

    Args:
        key: secret of the installation, 32 bytes.
        payload: what the mark says.
    """

    def __init__(self, key: bytes, payload: Payload) -> None:
        self.payload = payload
        self.chips = Spreading.of_key(key).chips(payload.word)
        self.content = ContentSigns.of_key(key)


@dataclass(frozen=True, slots=True)
class FrameMark:
    """The mark of one frame.

    Attributes:
        heights: float32 [ROWS, COLUMNS], of the bumps of the grid, of 255.
    """

    heights: Float32 = field(repr=False)

    def luma(self, side: int) -> Float32:
        """Return what is added to the luma of a render box of `side` pixels, float32 [side, side], of 255."""
        down, across = _bumps(side)
        return np.asarray(down @ (self.heights @ across), np.float32)


class MarkedFace:
    """The mark of one film, frame by frame in the order of the film. The pictures of the footage decide about signs and strength.

    Args:
        mark: the mark.
    """

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._strength = Strength()
        self._moments = LastMoments()
        self._signs: dict[int, Float64] = {}

    def of_frame(self, seconds: float, pixels: UInt8, scale: float) -> FrameMark:
        """Return the mark of the next frame.

        Args:
            seconds: time of the frame since the first frame of the film.
            pixels: render box of the footage, uint8 RGB [160, 160, 3].
            scale: pixels of the frame per box pixel.
        """
        picture = self._moments.with_frame(seconds, reduced(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)))
        step = int(np.floor(seconds / CHIP_S))
        # The first frame of a chip decides about its signs, which then stay: a sign that changes would flicker.
        had = self._signs
        self._signs = {number: had[number] if number in had else self._decided(picture, number) for number in (step, step + 1)}
        place = np.array([seconds / CHIP_S - step, seconds / CHIP_S - step - 1.0])
        weights = AMPLITUDE * self._strength.of_frame(seconds, pixels, scale) * bump(place)
        heights = weights[0] * self._signs[step] + weights[1] * self._signs[step + 1]
        return FrameMark(heights.astype(np.float32).reshape(ROWS, COLUMNS))

    def _decided(self, picture: UInt8, step: int) -> Float64:
        return np.asarray(self._mark.chips[step % PERIOD] * self._mark.content.of_chips(picture, step), np.float64)


@cache
def _bumps(side: int) -> tuple[Float32, Float32]:
    """Return the bumps of rows, float32 [side, ROWS], and those of columns, float32 [COLUMNS, side]."""
    down, across = bumps(side)
    return down.astype(np.float32), np.ascontiguousarray(across.T, np.float32)
