"""The choice of frames, and lines of methods."""

from __future__ import annotations

import numpy as np
import pytest

from research.bench.frame_choice import head_motion, head_poses, lines_of_frame_choice, measure_frame_choice, pauses
from research.bench.runs import MethodTime, lines_of_methods


def test_frames_are_chosen_for_all_of_the_speech() -> None:
    rows = measure_frame_choice(minutes=0.2)
    assert [(row.name, row.footage_frames, row.output_frames) for row in rows] == [
        ("retiming", 300, 300),
        ("backgrounds", 300, 300),
    ]
    assert all(row.seconds > 0.0 for row in rows)
    assert lines_of_frame_choice(rows)[0].startswith("retiming, 0 min of speech on 0 min of footage: ")


def test_chosen_frames_look_human() -> None:
    """The drawing that frames are chosen by looks like a person."""
    motion, silent, poses = head_motion(500, 0), pauses(500, 1), head_poses(500, 2)
    assert motion.shape == silent.shape == (500,)
    assert 0.0 <= motion.min() < 0.1 < motion.max() <= 1.0
    assert 0.1 < silent.mean() < 0.5
    assert np.degrees(poses[:, 1]).std() == pytest.approx(5.7, abs=0.2)
    assert np.abs(np.diff(np.degrees(poses[:, 1]))).max() < 3.0


def test_line_shows_speed_and_memory() -> None:
    """A method's line says frames a second and memory."""
    (line,) = lines_of_methods((MethodTime("ugc", 250, 10.0, 20.0, 30.0, 900.0),))
    assert line == "method ugc: 25.0 frames a second end to end (80.0 ms CPU a frame, at most 900 MiB), personalised in 30.0 s"
