"""Runs of frames that are rendered together."""

from __future__ import annotations

import numpy as np

from gateway.dub.render.all_windows import runs_of


def test_runs_are_the_unbroken_stretches_of_rendered_frames() -> None:
    rendered = np.array([1, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
    assert runs_of(rendered, range(8)) == [range(2), range(3, 4), range(6, 8)]
    assert runs_of(rendered, range(1, 7)) == [range(1, 2), range(3, 4), range(6, 7)]
    assert runs_of(rendered, range(4, 6)) == []
