"""Renderer of `hetero`: the landmark translator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.common.methods import RENDERERS
from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.hetero.renderer import HeteroRenderer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.hetero.personalize import personalize_hetero

    return personalize_hetero(job)


RENDERER: Final = Renderer(spec=RENDERERS["hetero"], open=HeteroRenderer, personalize=_personalize)
