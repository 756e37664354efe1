"""The networks that the stages of this machine serve: their folders, and what computes them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from services.common.chassis.settings import load_settings


def weights_of(stage: str) -> Path:
    """Return the folder of a stage's networks that the setting DUBSTAGE_STAGE_WEIGHTS names.

    Raises:
        InvalidRequest: the stage's settings are wrong.
    """
    folder: Path = getattr(_settings(stage), f"{stage}_weights")
    return folder


def runtime_of_renderers() -> str:
    """Return backend and precision that compute the renderers, and the kind of processor that they were chosen for.

    Raises:
        InvalidRequest: the stage's settings are wrong.
    """
    return str(_settings("render").runtime())


def _settings(stage: str) -> Any:
    kind = getattr(importlib.import_module(f"services.{stage}.settings"), f"{stage.capitalize()}Settings")
    return load_settings(kind)
