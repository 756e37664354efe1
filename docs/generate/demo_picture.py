"""`python -m docs.generate.demo_picture`: docs/images/demo.webp, a moving picture from the videos of `make demo`.

At the left the clip and, below, its dub; at the right, larger, the video that was made from one portrait. Dub and portrait show the
same moment of the same sentence, for the last three seconds of the clip. The picture repeats without end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gateway.cli.demo import demo_footage
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.array_types import UInt8

PORTRAIT_SIDE: Final = 368
"""Height and width of the portrait in the picture, pixels. Each of the two pictures of the clip has half of that."""
CLIP_CROP: Final = (26, 3, 100, 109)
"""Left, top, width and height of the part of the clip, pixels: a square, as the pixels are wider than high (128:117)."""
PORTRAIT_CROP: Final = (112, 2, 212, 212)
RATE: Final = 25
"""Pictures per second, the rate of the portrait's video."""
BEGIN_S: Final = 1
"""Seconds of the clip that are left out, so that the file stays small."""
QUALITY: Final = 38
"""Quality of the lossy WebP, 0 to 100: the file stays below 450 KB."""
LABELS: Final = ("filmed", "dubbed", "made from one photograph")
LABEL_SIZE: Final = 15
MARGIN: Final = 7


def frames_of(video: Path) -> list[UInt8]:
    """Return the frames of a video from BEGIN_S on, at RATE, as uint8 RGB [H, W, 3]."""
    information = probe(video)
    with VideoReader(information) as reader:
        frames = [to_rgb(frame) for frame in reader.frames(0, sys.maxsize)]
    per_picture = information.video.average_rate / RATE
    return [frames[int(number * per_picture)] for number in range(BEGIN_S * RATE, int(len(frames) / per_picture))]


def cut(picture: UInt8, crop: tuple[int, int, int, int], side: int) -> UInt8:
    """Return a part of a picture, scaled to side x side. crop: left, top, width and height, pixels."""
    left, top, width, height = crop
    part = picture[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def labelled(picture: UInt8, label: str) -> UInt8:
    """Return a picture with white text on a dark bar in its lower left corner."""
    image = Image.fromarray(picture)
    drawing = ImageDraw.Draw(image)
    font = ImageFont.load_default(LABEL_SIZE)
    width, height = drawing.textbbox((0, 0), label, font=font)[2:]
    top = image.height - height - 2 * MARGIN
    drawing.rectangle((0, top, width + 2 * MARGIN, image.height), fill=(24, 24, 24))
    drawing.text((MARGIN, top + MARGIN), label, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def sheets(filmed: Sequence[UInt8], dubbed: Sequence[UInt8], portrait: Sequence[UInt8]) -> list[UInt8]:
    """Return the pictures to show one after another, as many as the shortest video has. All are uint8 RGB [H, W, 3]."""
    half = PORTRAIT_SIDE // 2
    return [
        np.hstack([
            np.vstack([labelled(cut(before, CLIP_CROP, half), LABELS[0]), labelled(cut(after, CLIP_CROP, half), LABELS[1])]),
            labelled(cut(face, PORTRAIT_CROP, PORTRAIT_SIDE), LABELS[2]),
        ])
        for before, after, face in zip(filmed, dubbed, portrait, strict=False)
    ]  # fmt: skip


def write(pictures: Sequence[UInt8], output: Path) -> None:
    """Write an animated WebP that repeats without end. The same pictures give the same bytes."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(output, save_all=True, append_images=others, duration=1000 // RATE, loop=0, quality=QUALITY, method=4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate.demo_picture", description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("out/demo"), help="folder of the videos (default: out/demo)")
    parser.add_argument("--output", type=Path, default=Path("docs/images/demo.webp"), help="picture to write")
    options = parser.parse_args(arguments)
    footage = demo_footage()
    videos = [options.demo / "dub.mp4", options.demo / "portrait.mp4"]
    if footage is None or not all(video.is_file() for video in videos):
        print(f"no videos of the demo in {options.demo}: run `make demo`", file=sys.stderr)
        return 10
    write(sheets(frames_of(footage), *(frames_of(video) for video in videos)), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
