"""The renderer `hetero` as the registry holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.render.renderer import ExportJob, PersonalizeJob, Renderer
from services.render.renderers.hetero.inputs import REACH
from services.render.renderers.hetero.stream import HeteroDrawer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.hetero.personalize import personalize_hetero

    return personalize_hetero(job)


def _export(job: ExportJob) -> Path:
    from services.render.renderers.hetero.export import export_hetero

    return export_hetero(job)


RENDERER: Final = Renderer(
    name="hetero",
    frames_before=REACH,
    frames_after=REACH,
    inputs=("reference",),
    needs_actor=True,
    open=HeteroDrawer,
    personalize=_personalize,
    export=_export,
)
