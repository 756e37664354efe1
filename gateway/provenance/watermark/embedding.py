"""The mark of one film as pictures that are added to the luma of render boxes."""

from __future__ import annotations

from functools import cache

import numpy as np

from gateway.provenance.watermark.layout import AMPLITUDE, CHIP_S, COLUMNS, PERIOD, ROWS, bump, bumps
from gateway.provenance.watermark.payload import Payload
from gateway.provenance.watermark.spreading import Spreading
from services.common.array_types import Float32


class Mark:
    """The mark of one film.

    Args:
        key: secret of the installation, 32 bytes.
        payload: what the mark says.
    """

    def __init__(self, key: bytes, payload: Payload) -> None:
        self.payload = payload
        chips = Spreading.of_key(key).chips(payload.word)
        self._chips = (AMPLITUDE * chips).astype(np.float32).reshape(PERIOD, ROWS, COLUMNS)

    def luma(self, seconds: float, side: int, strength: float = 1.0) -> Float32:
        """Return what is added to the luma of a render box, float32 [side, side], of 255.

        Args:
            seconds: time of the frame since the first frame of the film.
            side: pixels of the box.
            strength: strength of the mark, 0 to 1 (strength.py).
        """
        step = int(np.floor(seconds / CHIP_S))
        place = np.array([seconds / CHIP_S - step, seconds / CHIP_S - step - 1.0])
        weights = (strength * bump(place)).astype(np.float32)
        signs = weights[0] * self._chips[step % PERIOD] + weights[1] * self._chips[(step + 1) % PERIOD]
        down, across = _bumps(side)
        return np.asarray(down @ (signs @ across), np.float32)


@cache
def _bumps(side: int) -> tuple[Float32, Float32]:
    """Return the bumps of rows, float32 [side, ROWS], and those of columns, float32 [COLUMNS, side]."""
    down, across = bumps(side)
    return down.astype(np.float32), np.ascontiguousarray(across.T, np.float32)
