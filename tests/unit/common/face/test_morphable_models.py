"""Morphable models by name."""

import pytest

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.morphable_models import DEFAULT_MODEL, MorphableModels
from tests.unit.common.geometry.small_models import small_model


@pytest.fixture
def folder(tmp_path):
    small_model().save(tmp_path / "mine.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "notes.landmarks.npy").write_bytes(b"")
    return tmp_path


def test_default_model_read_once():
    """The default model is always there and read once."""
    models = MorphableModels()
    assert models.names() == [DEFAULT_MODEL]
    assert models.get(DEFAULT_MODEL) is models.get(DEFAULT_MODEL)
    assert models.get(DEFAULT_MODEL).num_vertices == 468


def test_folder_models_by_file_name(folder):
    """Models of the user's folder are known by their file names."""
    models = MorphableModels(folder)
    assert models.names() == [DEFAULT_MODEL, "broken", "mine"]
    assert models.get("mine").num_vertices == 60
    assert models.get("mine") is models.get("mine")
    assert models.get("mine.safetensors").num_expression == 4


@pytest.mark.parametrize("name", ["flame", "../mine", "/etc/passwd", "", ".", "notes.landmarks"])
def test_unknown_model_lists_models(folder, name):
    """Another name is not found and the error lists those that are."""
    with pytest.raises(ModelNotFoundError, match="mediapipe_468, broken, mine"):
        MorphableModels(folder).get(name)
    with pytest.raises(ModelNotFoundError, match="DUBSTAGE_MORPHABLE_MODELS"):
        MorphableModels().get(name)


def test_a_damaged_file_is_named(folder):
    with pytest.raises(InvalidRequestError) as caught:
        MorphableModels(folder).get("broken")
    assert caught.value.message
