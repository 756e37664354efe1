"""The table of methods: a method is a composition of stages, not a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the table.

    Attributes:
        name: as users write it.
        motion: method name of the motion predictor (PredictMotionConfig.method).
        renderer: model name of the renderer (RenderConfig.model).
        moves_head: declares an output timeline of its own instead of dubbing in place.
    """

    name: str
    motion: str
    renderer: str
    moves_head: bool = False


METHODS: Final[dict[str, Method]] = {"ugc": Method(name="ugc", motion="ugc", renderer="ugc")}


def method_named(name: str) -> Method:
    """The row of a method.

    Raises:
        InvalidRequest: there is none of this name.
    """
    try:
        return METHODS[name]
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise InvalidRequest(f"no method {name!r}; there are: {known}", field="method") from None
