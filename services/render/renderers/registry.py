"""The renderers of the table of methods, imported by their paths."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from services.common.errors import ModelNotFoundError
from services.common.methods import RENDERERS
from services.render.renderer import Renderer

_FOLDER: Final = __name__.rpartition(".")[0]


def renderer_named(name: str) -> Renderer:
    """Return the renderer of a row: RENDERER of the package that has the renderer's name.

    Raises:
        ModelNotFoundError: the table has no renderer of this name; the message lists the names.
    """
    if name not in RENDERERS:
        raise ModelNotFoundError(f"no renderer {name[:80]!r}: there are {', '.join(sorted(RENDERERS))}", resource=name[:80])
    renderer: Renderer = import_module(f"{_FOLDER}.{name}").RENDERER
    return renderer
