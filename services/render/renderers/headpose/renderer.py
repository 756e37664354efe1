"""The renderer `headpose` as the registry holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.render.renderer import ExportJob, PersonalizeJob, Renderer
from services.render.renderers.headpose.inputs import DRAWN_WINDOW
from services.render.renderers.headpose.stream import HeadposeDrawer
from services.render.types import PersonalizeProgress, TextureInput


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.headpose.personalize import personalize_headpose

    return personalize_headpose(job)


def _export(job: ExportJob) -> Path:
    from services.render.renderers.headpose.export import export_headpose

    return export_headpose(job)


RENDERER: Final = Renderer(
    name="headpose",
    frames_before=DRAWN_WINDOW - 1,
    inputs=("texture",),
    texture=TextureInput.DRAWN,
    needs_actor=True,
    needs_identity=True,
    open=HeadposeDrawer,
    personalize=_personalize,
    export=_export,
)
