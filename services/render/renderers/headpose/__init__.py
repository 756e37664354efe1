"""Renderer of the method `headpose`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.render.renderer import PersonalizeJob, Renderer
from services.render.renderers.headpose.renderer import DRAWN_WINDOW, HeadposeRenderer
from services.render.types import PersonalizeProgress, TextureInput


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.headpose.personalize import personalize_headpose

    return personalize_headpose(job)


RENDERER: Final = Renderer(
    name="headpose",
    frames_before=DRAWN_WINDOW - 1,
    inputs=("texture",),
    texture=TextureInput.DRAWN,
    needs_actor=True,
    needs_identity=True,
    open=HeadposeRenderer,
    personalize=_personalize,
)
