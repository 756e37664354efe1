"""Renderer of the method `everybody`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.common.methods import RENDERERS
from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.everybody.renderer import EverybodyRenderer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.everybody.personalize import personalize_everybody

    return personalize_everybody(job)


RENDERER: Final = Renderer(spec=RENDERERS["everybody"], open=EverybodyRenderer, personalize=_personalize)
