"""The evaluation of the serving code on a made-up clip."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.common.errors import InvalidRequest
from services.motion.models import MotionModels
from services.motion.predictors.registry import PREDICTORS
from services.motion.train.clips import TrainingClip
from services.motion.train.evaluate import OFF, ServedPredictor, encoded, evaluate, variants
from services.motion.train.protocol import evaluate_clip
from tests.unit.motion.made_clips import made_clip
from tests.unit.motion.synthesised import head_poses, with_identity_removed


@pytest.fixture(scope="module")
def clip() -> TrainingClip:
    made = made_clip(0, "val", 130)
    return replace(made, features=with_identity_removed(made.features), poses=head_poses(130))


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_every_predictor_is_evaluated_in_every_variant(models: MotionModels, clip: TrainingClip, name: str) -> None:
    predictor = PREDICTORS[name]
    report = evaluate(predictor, models, [clip], {"anna"}, variants(predictor, models))
    assert report["version"] == predictor.version(models)
    scores = [report[f"{variant}/known"] for variant in ("network", "full", "personalized", "no_style")]
    assert all(isinstance(score, dict) and score["frames"] > 0 for score in scores)
    assert "full/dev" not in report


def test_a_predictor_that_moves_the_head_needs_head_poses(models: MotionModels, clip: TrainingClip) -> None:
    predictor = PREDICTORS["headpose"]
    served = ServedPredictor(predictor, models, OFF)
    with pytest.raises(InvalidRequest, match="no head poses"):
        evaluate_clip(replace(clip, poses=None), encoded(predictor, models), served)
