from __future__ import annotations

import pytest

from services.common.errors import ModelNotFound
from services.render.renderers.registry import RENDERERS
from services.render.train.rooms import model_names, training_named


def test_every_renderer_has_a_training_part() -> None:
    assert model_names() == sorted(RENDERERS)
    for name in RENDERERS:
        assert training_named(name).networks[-1].name == f"{name}_renderer"


def test_a_name_that_is_not_there_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ModelNotFound, match="everybody, everyone, headpose, hetero, ugc"):
        training_named("nobody")
