"""Settings of the motion stage's process."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.common.server.settings import DEFAULT_PORTS, LARGE_MESSAGE_BYTES, StageSettings
from services.motion.models import WEIGHTS


class MotionSettings(StageSettings):
    """Settings of the motion stage. Names of environment variables start with DUBSTAGE_."""

    port: int = Field(DEFAULT_PORTS["motion"], ge=0, le=65535, description="port to listen on; 0 takes a free port")
    motion_weights: Path = Field(WEIGHTS, description="folder of the exported motion and sync networks")
    compute_threads: int = Field(1, ge=1, le=256, description="threads inside one run of a network; more than 1 brings nothing")
    personalize_threads: int = Field(1, ge=1, le=64, description="personalisations that run at the same time, beside serving")
    max_message_bytes: int = Field(
        LARGE_MESSAGE_BYTES,
        ge=1 << 10,
        le=1 << 30,
        description="largest message in or out; six minutes of enrolment footage take 30 MB",
    )
