"""The default face model: MediaPipe's 468 vertices with bases learned in this repository (docs/models/morphable_model.md)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from services.common.geometry.morphable_model import MorphableModel

WEIGHTS: Final = Path(__file__).with_name("weights") / "mediapipe_468.safetensors"


@cache
def default_model() -> MorphableModel:
    """Return the committed model, in head space: vertex i is point i of the face mesh. The file is read once per process."""
    return MorphableModel.load(WEIGHTS)
