"""Shot cuts: frames whose picture differs wholly from the frame before."""

from __future__ import annotations

from collections import deque
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float32, Float64, UInt8

_SIZE: Final = (64, 36)
_BLOCKS: Final = (4, 3)
"""Blocks per side. Colour histograms are compared block by block, so that motion inside the picture changes few histograms."""
_HISTOGRAM_CHANGE: Final = 0.14
"""Smallest share of pixels whose colour class changes at a cut. Talking, gestures and pans stayed under 0.09."""
_PIXEL_CHANGE: Final = 15.0
"""... and the mean pixel by this many of 255 levels; pans stayed under 14.5."""
_AGAINST_RECENT: Final = 2.5
"""... which is also this many times the median change of the frames before."""
RECENT_CHANGES: Final = 8
"""Frames of the shot whose changes are kept."""
SMALL_PICTURE: Final = (_SIZE[1], _SIZE[0], 3)
"""Shape of the small picture that frames are compared by."""
COLOUR_CLASSES: Final = (_BLOCKS[0] * _BLOCKS[1], 64)
"""Shape of the shares of the colour classes in each block."""


class ShotDetector:
    """Compares each frame with the frame before. Keeps one small picture and a few numbers."""

    def __init__(self) -> None:
        self._previous: tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]] | None = None
        self._changes: deque[float] = deque(maxlen=RECENT_CHANGES)

    def push(self, picture: npt.NDArray[np.uint8]) -> bool:
        """Return whether uint8 RGB [H, W, 3] begins a new shot; False for the first frame."""
        current = _describe(picture)
        previous, self._previous = self._previous, current
        if previous is None:
            return False
        pixels = float(np.abs(current[0] - previous[0]).mean())
        colours = float(np.abs(current[1] - previous[1]).sum(axis=1).mean()) / 2
        usual = float(np.median(self._changes)) if self._changes else 0.0
        self._changes.append(pixels)
        cut = colours > _HISTOGRAM_CHANGE and pixels > max(_PIXEL_CHANGE, _AGAINST_RECENT * usual)
        if cut:
            self._changes.clear()
        return cut

    def arrays(self) -> dict[str, Array]:
        """Return what `set_arrays` takes, after the first frame."""
        assert self._previous is not None, "no frame was taken yet"
        picture, colours = self._previous
        return {"picture": picture.astype(np.uint8), "colours": colours, "changes": np.array(self._changes, np.float64)}

    def set_arrays(self, picture: UInt8, colours: Float32, changes: Float64) -> None:
        """Go on from the arrays of another detector.

        Args:
            picture: uint8 [36, 64, 3], the last frame.
            colours: float32 [12, 64], shares of the colour classes in each block of the last frame.
            changes: float64 [C], C <= 8, mean changes of the last pixels.
        """
        self._previous = picture.astype(np.int16), colours
        self._changes.clear()
        self._changes.extend(changes.tolist())


def _describe(picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    step = max(1, min(picture.shape[0] // 144, picture.shape[1] // 256))
    small = cv2.resize(np.ascontiguousarray(picture[::step, ::step]), _SIZE, interpolation=cv2.INTER_AREA)
    width, height = _SIZE[0] // _BLOCKS[0], _SIZE[1] // _BLOCKS[1]
    classes = (np.asarray(small, dtype=np.uint8) >> 6).astype(np.int64) @ np.array([16, 4, 1])
    blocks = classes.reshape(_BLOCKS[1], height, _BLOCKS[0], width).swapaxes(1, 2).reshape(-1, height * width)
    offsets = 64 * np.arange(len(blocks))[:, None]
    counts = np.bincount((blocks + offsets).ravel(), minlength=64 * len(blocks)).reshape(len(blocks), 64)
    return small.astype(np.int16), (counts / (width * height)).astype(np.float32)
