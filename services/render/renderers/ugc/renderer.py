"""The renderer `ugc` as the registry holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.render.renderer import ExportJob, PersonalizeJob, Renderer
from services.render.renderers.ugc.stream import UgcDrawer
from services.render.types import PersonalizeProgress, TextureInput


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.ugc.personalize import personalize_ugc

    return personalize_ugc(job)


def _export(job: ExportJob) -> Path:
    from services.render.renderers.ugc.export import export_ugc

    return export_ugc(job)


RENDERER: Final = Renderer(
    name="ugc",
    inputs=("texture",),
    texture=TextureInput.WARPED,
    open=UgcDrawer,
    personalize=_personalize,
    export=_export,
)
