"""Videos of pictures that tests make."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FAST = {"crf": "12", "preset": "superfast"}
"""Costs a third of the default preset's time, and has frames in another order than they are shown, too."""


def write_pictures(
    target: Path,
    pictures: Iterable[np.ndarray | av.VideoFrame],
    codec: str = "ffv1",
    *,
    rate: int | Fraction = 25,
    pixel_format: str = "yuv420p",
    **options: str,
) -> Path:
    """Write RGB pictures, uint8 [rows, columns, 3], or frames, as a video without sound. Options are the encoder's."""
    with av.open(str(target), "w") as output:
        stream: Any = None
        for number, picture in enumerate(pictures):
            frame = picture if isinstance(picture, av.VideoFrame) else _frame(picture)
            stream = stream or output.add_stream(
                codec, rate=rate, width=frame.width, height=frame.height, pix_fmt=pixel_format, options=options
            )
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return target


def _frame(picture: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
