"""The stages that the settings name: remote if endpoints are given, otherwise in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.settings import GatewaySettings
from gateway.stages.face_model import check_face_model
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.method_check import check_methods, listed_models
from gateway.stages.remote import RemoteStages
from services.common.chassis.caller import DEFAULT_TENANT, Caller, set_current_caller
from services.common.errors import InvalidRequest

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def open_stages(settings: GatewaySettings, *, connect_s: float = CONNECT_SECONDS) -> AsyncIterator[Stages]:
    """Open all five stages: behind gRPC if endpoints are set, in this process if no endpoint is set.

    The stages' models are compared with the gateway's table of methods, and the face stage is asked for the face model.

    Args:
        settings: with the endpoints.
        connect_s: seconds within which every remote stage must serve.

    Raises:
        InvalidRequest: some endpoints are set and others are not.
        StageDeadlineExceeded: a remote stage did not serve within `connect_s`.
        ContractBroken: a model of a stage differs from the table of methods.
        ModelNotFound, InvalidRequest: the face stage does not have the face model of the settings, or cannot fit it.
    """
    missing = [name for name in STAGE_NAMES if not settings.endpoint(name)]
    if missing == list(STAGE_NAMES):
        from gateway.stages.local import LocalStages, compose_stages

        async with LocalStages(compose_stages(settings.artefacts_url), face_model=settings.face_model) as local:
            check_methods(*await listed_models(local))
            await check_face_model(local)
            yield local
        return
    if missing:
        names = ", ".join(f"DUBSTAGE_{name.upper()}_ENDPOINT" for name in missing)
        raise InvalidRequest(f"some stages have an endpoint, others not: set {names} or DUBSTAGE_STAGES_HOST", field="stages")
    if settings.tenant != DEFAULT_TENANT:
        # Work of this task and of tasks that it begins: the stages' servers keep what they make in the tenant's store.
        set_current_caller(Caller(settings.tenant))
    configs = {name: settings.client_config(name) for name in STAGE_NAMES}
    async with RemoteStages(configs, face_model=settings.face_model, server_deadline_s=settings.max_deadline_s) as remote:
        await remote.wait_until_serving(connect_s)
        check_methods(*await listed_models(remote))
        await check_face_model(remote)
        yield remote
