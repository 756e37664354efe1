"""Morphable models, ready to be fitted."""

import dataclasses

import pytest

from services.common.errors import InvalidRequest, ModelNotFound
from services.common.face.morphable_models import MorphableModels
from services.face.fitting.model import FittableModels
from tests.unit.common.geometry.small_models import small_model


def test_a_model_is_prepared_once_and_keeps_the_name_it_is_asked_for_by(tmp_path):
    small_model().save(tmp_path / "mine.safetensors")
    models = FittableModels(MorphableModels(tmp_path))
    assert models.get("mine") is models.get("mine")
    assert (models.get("mine").name, models.get("mine").model.name) == ("mine", "small")
    with pytest.raises(ModelNotFound):
        models.get("flame")


def test_a_model_whose_landmarks_the_tracker_does_not_know_cannot_be_fitted(tmp_path):
    model = small_model()
    few = dataclasses.replace(model, landmarks={"mediapipe": model.landmark_set("mediapipe").select([0, 5, 9])})
    few.save(tmp_path / "few.safetensors")
    with pytest.raises(InvalidRequest, match="only 3 landmarks"):
        FittableModels(MorphableModels(tmp_path)).get("few")
