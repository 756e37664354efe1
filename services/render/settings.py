"""Settings of the render stage's process."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.common.settings import DEFAULT_PORTS, StageSettings
from services.render.backends.choice import BackendName, Device
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.types import Precision


class RenderSettings(StageSettings):
    """Environment variables start with DUBSTAGE_. Backend and precision left empty take the measured default of the device."""

    port: int = Field(default=DEFAULT_PORTS["render"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    render_weights: Path = Field(default=WEIGHTS_FOLDER, description="folder with exported models and the prior's weights")
    device: Device = Field(default="cpu", description="where networks are computed")
    backend: BackendName | None = Field(default=None, description="runtime of the networks")
    precision: Precision | None = Field(default=None, description="float32, bfloat16 or int8")
    batch_size: int = Field(default=4, ge=1, le=64, description="most frames of one stream that are computed at once")
    max_queued_personalizations: int = Field(default=4, ge=0, description="personalisations that may wait for the one running")
    personalize_threads: int = Field(default=2, ge=1, description="threads of a personalisation")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.backend is None) != (self.precision is None):
            raise ValueError("backend and precision are given together or not at all")
        return self
