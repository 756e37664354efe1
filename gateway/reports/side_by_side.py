"""Side-by-side videos that every browser plays: H.264, 4:2:0, AAC, in mp4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.reports.types import SideBySide
from services.common.array_types import UInt8

_AUDIO_BLOCK: Final = 1024


def beside(left: UInt8, right: UInt8) -> UInt8:
    """Return two pictures of one height next to each other: uint8 [H, W, 3] each -> [H, 2 W, 3]."""
    return np.concatenate([left, right], axis=1)


def write_side_by_side(path: Path, video: SideBySide) -> int:
    """Write the video, and return its number of frames. Pictures are taken one by one, so that any length fits in memory.

    Without a picture, no file is written.
    """
    pictures: Iterator[UInt8] = iter(video.pictures)
    first: UInt8 | None = next(pictures, None)
    if first is None:
        return 0
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=video.frame_rate, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = None
        if video.speech is not None:
            sound = container.add_stream("aac", rate=video.sample_rate_hz, layout="mono")
        frames = 0
        picture: UInt8 | None = first
        while picture is not None:
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            shown.pts, shown.time_base = frames, 1 / video.frame_rate
            container.mux(stream.encode(shown))
            frames, picture = frames + 1, next(pictures, None)
        container.mux(stream.encode(None))
        if sound is not None and video.speech is not None:
            samples = video.speech[: int(frames / video.frame_rate * video.sample_rate_hz)]
            for start in range(0, len(samples), _AUDIO_BLOCK):
                block = np.ascontiguousarray(samples[None, start : start + _AUDIO_BLOCK], dtype=np.float32)
                heard = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                heard.sample_rate, heard.pts = video.sample_rate_hz, start
                container.mux(sound.encode(heard))
            container.mux(sound.encode(None))
    return frames
