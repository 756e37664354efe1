"""Settings of the face stage's process."""

from __future__ import annotations

from pydantic import Field

from services.common.geometry.rasterise import Backend
from services.common.server.settings import DEFAULT_PORTS, LARGE_MESSAGE_BYTES, ReadableFolder, StageSettings


class FaceSettings(StageSettings):
    """Environment variables start with DUBSTAGE_."""

    port: int = Field(default=DEFAULT_PORTS["face"], ge=0, le=65535, description="port to listen on; 0 takes a free one")
    max_message_bytes: int = Field(
        default=LARGE_MESSAGE_BYTES, ge=1 << 10, le=1 << 30, description="largest message in or out; a 4K frame of RGB8 takes 25 MB"
    )
    morphable_models: ReadableFolder | None = Field(
        default=None, description="folder of the user's own morphable models (FLAME, Basel, ICT-FaceKit), by file name"
    )
    rasteriser: Backend = Field(
        default="numba",
        description="rasteriser of fits: numba, or pytorch3d, which must be installed and uses a GPU if there is one",
    )
