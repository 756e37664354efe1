"""Short footage: most of the time of these tests would go into the encoding of longer videos."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest


@pytest.fixture(scope="session")
def carphone(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 12 frames of the man talking: 176 x 144, 30000/1001 frames/s, no sound."""
    path = tmp_path_factory.mktemp("carphone") / "carphone.mp4"
    with av.open(str(carphone)) as source, av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=Fraction(30000, 1001), width=176, height=144, pix_fmt="yuv420p")
        for frame in islice(source.decode(video=0), 12):
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path
