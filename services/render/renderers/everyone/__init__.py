"""Renderer of the method `everyone`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.common.methods import RENDERERS
from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.everyone.renderer import EveryoneRenderer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.everyone.personalize import personalize_everyone

    return personalize_everyone(job)


RENDERER: Final = Renderer(spec=RENDERERS["everyone"], open=EveryoneRenderer, personalize=_personalize)
