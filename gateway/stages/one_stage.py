"""One stage of the settings, for commands that need no other. A stage in this process starts without the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages


@asynccontextmanager
async def open_stage(settings: GatewaySettings, name: str) -> AsyncIterator[Stages]:
    """Open one stage: with all others if it is behind gRPC, otherwise alone, in this process.

    Args:
        settings: with the endpoint, or without.
        name: name of the stage, such as face.

    Raises:
        InvalidRequest, StageDeadlineExceeded, ContractBroken: as `open_stages`, for a remote stage.
    """
    if settings.endpoint(name):
        async with open_stages(settings) as stages:
            yield stages
        return
    from gateway.stages.local import LocalStages, compose_stages

    async with LocalStages(compose_stages(settings.artefacts_url, names=(name,)), face_model=settings.face_model) as local:
        yield local
