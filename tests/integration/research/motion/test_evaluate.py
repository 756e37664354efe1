"""The evaluation of the serving code on a made-up clip."""

import sys
from pathlib import Path

import pytest

from research.motion import evaluate as command
from research.motion.clips import Clips
from research.motion.evaluate import AS_FILMED, evaluate, variants
from services.common.methods import PREDICTORS
from services.motion.models import MotionModels
from services.motion.predictors.registry import predictor_named
from tests.unit.motion.made_clips import in_memory, made_clip


@pytest.fixture(scope="module")
def clips() -> Clips:
    return in_memory([made_clip(0, "val", 130)])


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_every_predictor_is_evaluated_in_every_variant(models: MotionModels, clips: Clips, name: str) -> None:
    predictor = predictor_named(name)
    report = evaluate(predictor, models, {"known": clips}, {"known": clips}, variants(predictor, models))
    assert report["version"] == predictor.version(models)
    scores = [report[f"{variant}/known"] for variant in ("network", "full", "personalized", "no_style")]
    assert all(isinstance(score, dict) and score["frames"] > 0 for score in scores)
    assert all(isinstance(score, dict) and {f"{each}_as_filmed" for each in AS_FILMED} <= set(score) for score in scores)


def test_folder_without_training_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "--predictor", "ugc", "--data", str(tmp_path)])
    assert command.main() == 10
    assert "is not a training set" in capsys.readouterr().err
