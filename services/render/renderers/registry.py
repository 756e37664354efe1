"""All renderers by name: one line a method."""

from __future__ import annotations

from typing import Final

from services.common.errors import ModelNotFound
from services.render.renderer import Renderer
from services.render.renderers.everybody import RENDERER as EVERYBODY
from services.render.renderers.everyone import RENDERER as EVERYONE
from services.render.renderers.headpose import RENDERER as HEADPOSE
from services.render.renderers.hetero import RENDERER as HETERO
from services.render.renderers.ugc import RENDERER as UGC

RENDERERS: Final[dict[str, Renderer]] = {
    "ugc": UGC,
    "everybody": EVERYBODY,
    "headpose": HEADPOSE,
    "hetero": HETERO,
    "everyone": EVERYONE,
}
"""Looked up when a name is needed, never copied: a test adds a renderer of its own."""


def renderer_named(name: str) -> Renderer:
    """Return the renderer of a name.

    Raises:
        ModelNotFound: there is no renderer of this name; the message lists the names.
    """
    if name not in RENDERERS:
        raise ModelNotFound(f"no renderer {name[:80]!r}: there are {', '.join(sorted(RENDERERS))}", resource=name[:80])
    return RENDERERS[name]
