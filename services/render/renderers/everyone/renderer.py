"""The renderer `everyone` as the registry holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.render.renderer import ExportJob, PersonalizeJob, Renderer
from services.render.renderers.everyone.stream import EveryoneDrawer
from services.render.types import PersonalizeProgress


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    # Importing PyTorch takes seconds and much memory, which a process that only draws never pays.
    from services.render.renderers.everyone.personalize import personalize_everyone

    return personalize_everyone(job)


def _export(job: ExportJob) -> Path:
    from services.render.renderers.everyone.export import export_everyone

    return export_everyone(job)


RENDERER: Final = Renderer(
    name="everyone",
    frames_before=1,
    frames_after=1,
    inputs=("neural_features", "speech_features"),
    needs_actor=True,
    needs_identity=True,
    open=EveryoneDrawer,
    personalize=_personalize,
    export=_export,
)
