from __future__ import annotations

import pytest

from services.render.renderer import Renderer
from services.render.types import TextureInput
from tests.unit.render.toy import NAME, Toy, never_exported, personalize


@pytest.mark.parametrize(
    ("inputs", "texture"),
    [(("audio",), TextureInput.NONE), (("texture",), TextureInput.NONE), ((), TextureInput.DRAWN)],
)
def test_a_renderer_that_contradicts_itself_is_refused(inputs: tuple[str, ...], texture: TextureInput) -> None:
    with pytest.raises(ValueError, match="renderer 'toy'"):
        Renderer(
            name=NAME,
            inputs=inputs,
            texture=texture,
            open=Toy().renderer().open,
            personalize=personalize,
            export=never_exported,
        )
