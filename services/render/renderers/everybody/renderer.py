"""The renderer `everybody` as the registry holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.render.renderer import ExportJob, PersonalizeJob, Renderer
from services.render.renderers.everybody.inputs import WINDOW_FRAMES
from services.render.renderers.everybody.stream import EverybodyDrawer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.everybody.personalize import personalize_everybody

    return personalize_everybody(job)


def _export(job: ExportJob) -> Path:
    from services.render.renderers.everybody.export import export_everybody

    return export_everybody(job)


RENDERER: Final = Renderer(
    name="everybody",
    frames_before=WINDOW_FRAMES - 1,
    needs_actor=True,
    open=EverybodyDrawer,
    personalize=_personalize,
    export=_export,
)
