from __future__ import annotations

import pytest

from services.common.errors import ModelNotFound
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.renderers.registry import RENDERERS, renderer_named
from services.render.types import TextureInput


def test_every_model_that_comes_with_dubstage_has_a_renderer() -> None:
    names = {path.name.removesuffix(".export.json") for path in WEIGHTS_FOLDER.glob("*.export.json")}
    assert names == set(RENDERERS) == {renderer.name for renderer in RENDERERS.values()}
    assert {name: (row.frames_before, row.frames_after, row.inputs, row.texture) for name, row in RENDERERS.items()} == {
        "ugc": (0, 0, ("texture",), TextureInput.WARPED),
        "everybody": (6, 0, (), TextureInput.NONE),
        "headpose": (2, 0, ("texture",), TextureInput.DRAWN),
        "hetero": (2, 2, ("reference",), TextureInput.NONE),
        "everyone": (1, 1, ("neural_features", "speech_features"), TextureInput.NONE),
    }
    with pytest.raises(ModelNotFound, match="no renderer 'ugly'"):
        renderer_named("ugly")
