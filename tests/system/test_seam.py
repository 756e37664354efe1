"""Seams in encoded videos of a real person: planted ones are seen, and those of the codec are not."""

from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gateway.batch.finished import finish_of
from gateway.batch.types import ShotFinish
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.reports.records import track_output
from gateway.reports.scales import SCALES
from research.stage_host import StageHost
from tests.written_pictures import write_pictures

FRAMES = 75


def encoded(source: Path, target: Path, level: tuple[float, float, float]) -> Path:
    """The first frames of a video of 256 x 256 pixels, with an RGB level added in a box about mouth and chin."""
    with av.open(str(source)) as reader:
        frames = islice(reader.decode(video=0), FRAMES)
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(np.float32)
    pictures[:, 165:240, 86:162] += level
    return write_pictures(target, np.clip(pictures, 0, 255).astype(np.uint8), "libx264", crf="18", preset="superfast")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_planted_seams_are_beyond_the_edge(clips: Any, host: StageHost, tmp_path: Path) -> None:
    """A seam of 10 levels, in luma or in colour, is beyond the edge of good dubs. A copy of the footage is far below it."""
    footage = encoded(clips.path("people/dev_6.mp4"), tmp_path / "footage.mp4", (0, 0, 0))

    async def finish(video: MediaInfo) -> ShotFinish:
        (tracked,) = await track_output(host.stages, video, [(0, (0, 0, 1, 1))])  # the only face
        assert tracked is not None
        return await finish_of(host.stages, video, probe(footage), tracked)

    def seam(name: str, level: tuple[float, float, float]) -> float:
        video = encoded(clips.path("people/dev_6.mp4"), tmp_path / f"{name}.mp4", level)
        found = host.run(finish(probe(video))).seam
        assert found is not None
        return found

    edge = SCALES["seam"].high
    assert edge is not None
    assert seam("copy", (0, 0, 0)) < 0.2 * edge
    assert seam("luma", (10, 10, 10)) > 1.5 * edge
    assert seam("colour", (10, 0, -10)) > 1.5 * edge
