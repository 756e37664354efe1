"""`dubstage evaluate` on a real clip with the trained networks: what of the papers' own figures must be there, for every method."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.head_motion import HEAD_FIGURES, HEAD_ROWS
from research.evaluation.protocol import EvaluationSettings
from research.stage_host import StageHost
from services.common.methods import METHODS
from tests.system.dubbing import UNPERSONALIZED, cut
from tests.system.evaluating import Evaluator

SETTINGS = EvaluationSettings(
    variants=("mean_mouth", "oracle_full"), bootstrap=BootstrapSettings(replicates=2), sample_count=0, only_fold=0
)


@pytest.fixture(scope="module")
def evaluate(host: StageHost, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return Evaluator(host, tmp_path_factory.mktemp("evaluations"))


@pytest.fixture(scope="module")
def clip(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a dev clip."""
    return cut(clips.path("video/vr_face5.mp4"), tmp_path_factory.mktemp("evaluate") / "clip.mkv", 0.0, 3.0)


@pytest.mark.long
def test_true_landmarks_give_smaller_errors(clip: Path, evaluate: Evaluator) -> None:
    """The truth's landmarks give smaller expression and landmark errors than one mouth."""
    found = evaluate("dubstage", clip, UNPERSONALIZED, SETTINGS)
    mean, oracle = (found.variants[name].paper for name in SETTINGS.variants)
    for name in ("expression_error", "landmark_error_px"):
        assert 0.0 < oracle[name] < 0.6 * mean[name]
    assert found.head_motion is None


@pytest.mark.long
def test_motion_is_measured_on_real_footage(clip: Path, evaluate: Evaluator) -> None:
    settings = replace(SETTINGS, variants=("mean_mouth", "full", "oracle_full"))
    found = evaluate("dubstage", clip, UNPERSONALIZED, settings)
    mean, full, oracle = (found.variants[name].metrics for name in settings.variants)
    # The landmarks of the truth move as the truth moves.
    assert oracle["lip_width_spread_ratio"] == pytest.approx(1.0, abs=0.25)
    assert oracle["fastest_step_ratio"] == pytest.approx(1.0, abs=0.35)
    assert mean["lip_width_spread_ratio"] < 0.3
    assert mean["fastest_step_ratio"] < 0.3
    # Silence is put around the sound, so that every clip has it.
    assert 0.0 <= full["silence_opening"] < 3.0


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].own_timeline])
def test_moved_head_measured_in_place(method: str, clip: Path, evaluate: Evaluator) -> None:
    """A moved head is measured in place and its motion apart."""
    found = evaluate(method, clip, UNPERSONALIZED, SETTINGS)
    assert found.variants["oracle_full"].metrics["mouth_psnr_db"] > 18.0
    assert found.variants["oracle_full"].passed_through == 0
    head = found.head_motion
    assert set(head.scores) == set(HEAD_ROWS)
    for figures in head.scores.values():
        assert all(0.0 <= figures[name] <= 1.0 for name in HEAD_FIGURES)
    enrol, test = found.folds[0].fold.enrol, found.folds[0].fold.test
    backgrounds = head.motion.backgrounds
    assert len(backgrounds) == len(test)
    assert enrol.start <= backgrounds.min() <= backgrounds.max() < enrol.stop
    assert np.abs(np.diff(backgrounds)).max() <= 2
    assert head.motion.predicted.shape == head.motion.output.shape == (len(test), 6)
