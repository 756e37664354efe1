"""Renderer of the method `headpose`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.common.methods import RENDERERS
from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.headpose.renderer import HeadposeRenderer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.headpose.personalize import personalize_headpose

    return personalize_headpose(job)


RENDERER: Final = Renderer(spec=RENDERERS["headpose"], open=HeadposeRenderer, personalize=_personalize)
