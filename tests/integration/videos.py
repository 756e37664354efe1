"""The media folder of the tests: a short video of a real man, and a short speech."""

from dataclasses import dataclass
from pathlib import Path

import av

from tests.written_pictures import FAST, write_pictures

SPEECH = Path(__file__).parents[2] / "gateway" / "cli" / "demo_speech.flac"
NUM_FRAMES = 40
OTHER = "other.mp4"
"""Footage for gateways with a database of their own: equal footage has equal blobs, and only one database counts the blobs."""


@dataclass(frozen=True)
class Media:
    """The gateway's media folder with a short clip of a real man and a short speech."""

    root: Path

    @property
    def footage(self) -> Path:
        return self.root / "footage.mp4"

    @property
    def speech(self) -> Path:
        return self.root / "speech.wav"


def write_short_clip(source: Path, target: Path, num_frames: int, *, times: int = 1, end: int | None = None) -> None:
    """The last frames of a video before frame `end`, `times` times, twice as large and with square pixels.

    A face too small would be passed through.
    """
    with av.open(str(source)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)][:end][-num_frames:]
    height, width, _ = pictures[0].shape
    larger = (av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(2 * width, 2 * height) for picture in pictures * times)
    write_pictures(target, larger, "libx264", **FAST)
