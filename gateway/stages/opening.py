"""The stages that the settings name: remote where an endpoint is given, else in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.remote import STAGE_NAMES, RemoteStages
from services.common.errors import InvalidRequest

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def open_stages(settings: GatewaySettings, *, connect_s: float = CONNECT_SECONDS) -> AsyncIterator[Stages]:
    """All five stages behind gRPC when endpoints are set, all five in this process when none is.

    Raises:
        InvalidRequest: some endpoints are set and others not.
        StageDeadlineExceeded: a remote stage did not serve within `connect_s`.
    """
    missing = [name for name in STAGE_NAMES if not settings.endpoint(name)]
    if missing == list(STAGE_NAMES):
        from gateway.stages.local import LocalStages, compose_stages

        async with LocalStages(compose_stages(settings.artefacts_url)) as local:
            yield local
        return
    if missing:
        names = ", ".join(f"DUBSTAGE_{name.upper()}_ENDPOINT" for name in missing)
        raise InvalidRequest(f"some stages have an endpoint, others not: set {names} or DUBSTAGE_STAGES_HOST", field="stages")
    async with RemoteStages({name: settings.client_config(name) for name in STAGE_NAMES}) as remote:
        await remote.wait_until_serving(connect_s)
        yield remote
