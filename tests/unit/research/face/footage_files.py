"""Videos that tests write."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

QUARTER_TURN = (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    rate: Fraction = Fraction(25),
    aspect: Fraction | None = None,
    is_turned: bool = False,
) -> None:
    """Write a video without loss.

    Args:
        path: file, *.mkv, or *.mp4 where `aspect` or `is_turned` is given.
        pictures: uint8 [H, W, 3], RGB.
        rate: frames per second.
        aspect: width over height of a sample; None: not stated.
        is_turned: whether players turn the video counter-clockwise by a quarter.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        context = stream.codec_context
        if is_turned:
            stream.set_display_matrix(QUARTER_TURN)
        context.pix_fmt = "bgr0"
        for number, picture in enumerate(pictures):
            if number == 0:
                context.height, context.width = picture.shape[:2]
                if aspect is not None:
                    context.sample_aspect_ratio = aspect
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
