"""Morphable models, ready to be fitted."""

import dataclasses

import pytest

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.morphable_models import MorphableModels
from services.face.fitting.model import FittableModels
from tests.unit.common.geometry.small_models import small_model


def test_model_prepared_once(tmp_path):
    """A model is prepared once and keeps the name it is asked for by."""
    small_model().save(tmp_path / "mine.safetensors")
    models = FittableModels(MorphableModels(tmp_path))
    assert models.get("mine") is models.get("mine")
    assert (models.get("mine").name, models.get("mine").model.name) == ("mine", "small")
    with pytest.raises(ModelNotFoundError):
        models.get("flame")


def test_unknown_landmarks_cannot_be_fitted(tmp_path):
    """A model whose landmarks the tracker does not know cannot be fitted."""
    model = small_model()
    few = dataclasses.replace(model, landmarks={"mediapipe": model.landmark_set("mediapipe").select([0, 5, 9])})
    few.save(tmp_path / "few.safetensors")
    with pytest.raises(InvalidRequestError, match="only 3 landmarks"):
        FittableModels(MorphableModels(tmp_path)).get("few")
