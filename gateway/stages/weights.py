"""The folders of networks that the stages of this machine serve."""

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
    kind = getattr(importlib.import_module(f"services.{stage}.settings"), f"{stage.capitalize()}Settings")
    settings: Any = load_settings(kind)
    folder: Path = getattr(settings, f"{stage}_weights")
    return folder
