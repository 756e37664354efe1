"""Settings of the audio stage's process."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.audio.models import WEIGHTS
from services.common.server.settings import DEFAULT_PORTS, StageSettings


class AudioSettings(StageSettings):
    """Environment variables start with DUBSTAGE_."""

    port: int = Field(default=DEFAULT_PORTS["audio"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    audio_weights: Path = Field(
        default=WEIGHTS, description="folder with ppg.onnx, id_removal.onnx, speech_encoder.onnx and silero_vad.onnx"
    )
    compute_threads: int = Field(default=1, ge=1, le=256, description="threads inside one run of a network; more bring little")
