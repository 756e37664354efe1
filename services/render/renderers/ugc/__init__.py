"""Renderer of the method `ugc`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.common.methods import RENDERERS
from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.ugc.renderer import UgcRenderer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.ugc.personalize import personalize_ugc

    return personalize_ugc(job)


RENDERER: Final = Renderer(spec=RENDERERS["ugc"], open=UgcRenderer, personalize=_personalize)
