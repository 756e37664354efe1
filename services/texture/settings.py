"""Settings of the texture stage's process."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.common.geometry.rasterise import Backend
from services.common.server.settings import DEFAULT_PORTS, LARGE_MESSAGE_BYTES, ReadableFolder, StageSettings
from services.texture.temporal_warp import WEIGHTS


class TextureSettings(StageSettings):
    """Environment variables start with DUBSTAGE_."""

    port: int = Field(DEFAULT_PORTS["texture"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    texture_weights: Path = Field(WEIGHTS, description="folder with temporal_warp.onnx, or the file itself")
    compute_threads: int = Field(1, ge=1, le=256, description="threads inside one run of the network; more bring nothing")
    max_message_bytes: int = Field(
        LARGE_MESSAGE_BYTES, ge=1 << 10, le=1 << 30, description="largest message in or out; a 4K portrait of RGB8 takes 25 MB"
    )
    morphable_models: ReadableFolder | None = Field(
        None, description="folder of the user's own morphable models (FLAME, Basel, ICT-FaceKit), by file name"
    )
    rasteriser: Backend = Field(
        "numba",
        description="rasteriser of drawn faces: numba, or pytorch3d, which must be installed and uses a GPU if there is one",
    )
