"""Network inputs of the predictor."""

from __future__ import annotations

from services.motion.features import silence
from services.motion.predictors.everybody.inputs import FEATURE
from services.motion.types import SpeechFeatures
from tests.unit.motion.predictors.everybody.person import heard


def test_joined_features_lose_the_cepstra_where_a_part_has_none() -> None:
    assert not SpeechFeatures.joined([heard(3), silence(2)]).extra
    assert SpeechFeatures.joined([heard(3), heard(2)]).extra[FEATURE].shape == (5, 4, 20)
