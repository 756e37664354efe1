"""Videos whose frames show their own number, and clips of timelines."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import opentimelineio as otio

NTSC = Fraction(24000, 1001)

_BITS, _CELL, _HEIGHT = 16, 8, 64


def paint_video(path: Path, frames: int, rate: Fraction, *, timecode: str = "", first: int = 0, sound: bool = True) -> Path:
    """Write a video whose frame n shows the number first + n as white and black columns."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = _BITS * _CELL, _HEIGHT, "yuv420p"
        stream.options = {"crf": "18", "preset": "ultrafast", "g": "48", "bf": "2"}
        if timecode:
            stream.metadata["timecode"] = timecode
        track = output.add_stream("pcm_s16le", rate=48000, layout="mono") if sound else None
        for number in range(first, first + frames):
            bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8) * 255
            picture = np.repeat(np.repeat(bits, _CELL)[None], _HEIGHT, axis=0)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        output.mux(stream.encode())
        if track is not None:
            samples = np.zeros((1, round(frames / rate * 48000)), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 48000
            output.mux(track.encode(frame))
            output.mux(track.encode())
    return path


def painted_numbers(path: Path) -> list[int]:
    """Return the numbers that the frames of a video show."""
    with av.open(str(path)) as video:
        return [_number(frame.to_ndarray(format="gray")) for frame in video.decode(video=0)]


def _number(picture: np.ndarray) -> int:
    row = picture[_HEIGHT // 2, _CELL // 2 :: _CELL][:_BITS]
    return int(sum(1 << bit for bit, value in enumerate(row) if value > 127))


def write_speech(path: Path, seconds: float, rate_hz: int = 16000) -> Path:
    """Write a sound file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.name)).integers(-9000, 9000, (1, round(seconds * rate_hz))).astype(np.int16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate_hz
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def time(frames: float, rate: Fraction = NTSC) -> Any:
    """A time of OpenTimelineIO."""
    return otio.opentime.RationalTime(frames, float(rate))


def clip(name: str, start: float = 100, frames: float = 10, rate: Fraction = NTSC, effects: Any = ()) -> Any:
    """A clip of the file `NAME a.mov`."""
    span = otio.opentime.TimeRange(time(start, rate), time(frames, rate))
    return otio.schema.Clip(name, otio.schema.ExternalReference(f"file:///plates/{name}%20a.mov"), span, effects=list(effects))
