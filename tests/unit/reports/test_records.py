"""Motion of a dub against the person's own motion, from the records in the job's folder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.dub.records import FEATURE_RECORD, MOTION_RECORD
from gateway.dub.workspace import Workspace
from gateway.reports.records import motion_of
from services.common.face.landmarks import lip_width, mouth_opening
from services.common.wire.mouth_curves import SpeakingMotion, speaking_motion
from tests.unit.motion.synthesised import mouths

FPS = 50


def opening_at(seconds: np.ndarray) -> np.ndarray:
    """A mouth that speaks from 1 to 3 s, four times a second, and is open until 3.3 s."""
    wave = 6.0 - 6.0 * np.cos(2 * np.pi * 4.0 * (seconds - 1.0))
    return np.where((seconds >= 1.0) & (seconds < 3.0), wave, np.where((seconds >= 3.0) & (seconds < 3.3), 6.0, 0.0))


def rounded(opening: np.ndarray) -> np.ndarray:
    """Mouths whose lips are narrower when they are open."""
    made = mouths(opening.astype(np.float32))
    made[:, :40, 0] *= 1.0 - 0.01 * opening[:, None]
    return made


def person() -> SpeakingMotion:
    """The person of the footage, at 25 frames per second, at rest from 3 s on."""
    seconds = np.arange(125) / 25
    seen = rounded(np.where(seconds < 3.0, opening_at(seconds), 0.0))
    found = speaking_motion(mouth_opening(seen), lip_width(seen), (seconds >= 1.0) & (seconds < 3.0))
    assert found is not None
    return found


def job(folder: Path, speaking: SpeakingMotion | None, rendered: np.ndarray) -> tuple[Any, Workspace]:
    workspace = Workspace(folder)
    count = len(rendered)
    seconds = np.arange(count) / FPS
    motion = np.zeros(count, MOTION_RECORD)
    motion["mouth"] = rounded(opening_at(seconds))
    motion["speech_probability"] = (seconds >= 1.0) & (seconds < 3.0)
    workspace.motion.append(motion)
    workspace.motion.sync()
    workspace.speech.append(np.zeros(count // 2 + 11, FEATURE_RECORD))
    workspace.speech.sync()
    video = SimpleNamespace(pts=np.arange(count), time_base=Fraction(1, FPS))
    outcome = SimpleNamespace(
        line=None,
        actor=SimpleNamespace(speaking=speaking),
        plan=SimpleNamespace(rendered=lambda: rendered, num_frames=count),
        video=SimpleNamespace(video=video),
    )
    return outcome, workspace


def test_other_rate_compared_on_grid(tmp_path: Path) -> None:
    """A video of another rate is compared on the person's grid."""
    outcome, workspace = job(tmp_path / "job", person(), np.ones(250, np.bool_))
    with workspace:
        figures = motion_of(outcome, workspace)
    assert figures is not None
    # The same motion as the person's, but for the mouth that stays half open after the voice: one of two silences.
    assert (figures.opening_spread, figures.width_spread) == pytest.approx((1.0, 1.0), abs=0.05)
    assert figures.fastest_step == pytest.approx(1.0, abs=0.05)
    assert figures.silence_opening == pytest.approx(0.25, abs=0.03)


def test_frames_that_are_not_rendered_do_not_count(tmp_path: Path) -> None:
    rendered = np.ones(250, np.bool_)
    rendered[150:170] = False
    outcome, workspace = job(tmp_path / "job", person(), rendered)
    with workspace:
        figures = motion_of(outcome, workspace)
    assert figures is not None
    assert figures.silence_opening == pytest.approx(0.0, abs=0.01)


def test_nothing_compared_without_motion(tmp_path: Path) -> None:
    """Without the person's own motion or a dubbed frame, nothing is compared."""
    for name, speaking, rendered in (("old", None, True), ("undubbed", person(), False)):
        outcome, workspace = job(tmp_path / name, speaking, np.full(250, rendered))
        with workspace:
            assert motion_of(outcome, workspace) is None
