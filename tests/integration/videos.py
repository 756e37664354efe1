"""The media folder of the tests: a short video of a real man, and a short speech."""

from dataclasses import dataclass
from pathlib import Path

import av

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
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)][:end][-num_frames:]
        stream = writer.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        height, width, _ = pictures[0].shape
        stream.width, stream.height, stream.pix_fmt = 2 * width, 2 * height, "yuv420p"
        # The preset costs a third of the default preset's time, and has frames in another order than they are shown, too.
        stream.options = {"crf": "12", "preset": "superfast"}
        for picture in pictures * times:
            larger = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(2 * width, 2 * height)
            writer.mux(stream.encode(larger))
        writer.mux(stream.encode(None))
