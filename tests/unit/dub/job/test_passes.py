"""Progress of the last pass of a dub."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.dub.job.passes import VideoProgress

DUBBED = np.array([False, True, True, True, True, False, True, True])


def test_rendered_and_written_frames_count_half() -> None:
    """Frames that are rendered but not yet written move the progress, each once."""
    told: list[tuple[int, int]] = []
    progress = VideoProgress([DUBBED], len(DUBBED), lambda done, total: told.append((done, total)))
    for frame in (1, 2, 2, 3, 4):
        progress.rendered(0, frame)
    assert [done for done, _ in told] == [0, 1, 2]
    progress.written(4)
    progress.written(8)
    assert told[-1] == (8, 8)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_rendered_in_an_earlier_run() -> None:
    """Windows of an earlier run are not rendered again: their frames count when they are written."""
    told: list[int] = []
    VideoProgress([DUBBED, DUBBED], len(DUBBED), lambda done, _: told.append(done)).written(8)
    assert told == [8]


@pytest.mark.parametrize("faces", [0, 1])
def test_no_mouth_to_render(faces: int) -> None:
    """A video without a dubbed frame is finished by writing alone."""
    told: list[int] = []
    progress = VideoProgress([np.zeros(4, np.bool_)] * faces, 4, lambda done, _: told.append(done))
    progress.written(2)
    progress.written(4)
    assert told == [2, 4]
