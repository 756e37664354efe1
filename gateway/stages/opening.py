"""The stages that the settings name: remote if endpoints are given, otherwise in this process.

Opening checks that the face stage has the face model of the settings and can fit it. The module also opens the stages for callers
that are not asynchronous, and one stage alone for commands that need no other.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.face.v1alpha1 import face_pb2
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.method_check import check_methods, listed_models
from gateway.stages.remote import RemoteStages
from services.common.errors import InvalidRequest, ModelNotFound
from services.common.server.call_context import DEFAULT_TENANT, Caller, set_current_caller
from services.common.server.settings import load_settings


def weights_of(stage: str) -> Path:
    """Return the folder of a stage's networks that the setting DUBSTAGE_STAGE_WEIGHTS names.

    Raises:
        InvalidRequest: the stage's settings are wrong.
    """
    folder: Path = getattr(_settings(stage), f"{stage}_weights")
    return folder


def runtime_of_renderers() -> str:
    """Return backend and precision that compute the renderers, and the kind of processor that they were chosen for.

    Raises:
        InvalidRequest: the stage's settings are wrong.
    """
    return str(_settings("render").runtime())


def _settings(stage: str) -> Any:
    kind = getattr(importlib.import_module(f"services.{stage}.settings"), f"{stage.capitalize()}Settings")
    return load_settings(kind)


VARIABLE: Final = "DUBSTAGE_FACE_MODEL"


async def check_face_model(stages: Stages) -> None:
    """Ask the face stage to load the face model, by a stream that ends before its first frame. An empty name needs no check.

    Raises:
        ModelNotFound: the face stage has no such model; the message lists the models that there are.
        InvalidRequest: the model's file is damaged, or the tracker knows too few of the model's landmarks.
        DubstageError: from the face stage.
    """
    if not stages.face_model:
        return

    async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
        yield face_client.track.requests(morphable_model=stages.face_model).config

    replies: Any = stages.stream(rpcs.face.TRACK, requests())
    try:
        async with aclosing(replies):
            async for _ in replies:
                pass
    except ModelNotFound as problem:
        raise ModelNotFound(f"{VARIABLE}: {problem.message}", resource=stages.face_model) from None
    except InvalidRequest as problem:
        raise InvalidRequest(f"{VARIABLE}: {problem.message}", field=VARIABLE) from None


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


T = TypeVar("T")


class StageHost:
    """The stages of the settings, in an event loop that runs in a thread of its own; a context manager."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stages", daemon=True)
        self._stack = AsyncExitStack()
        self.stages: Stages

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and return the result."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self.stages = self.run(self._stack.enter_async_context(open_stages(self._settings)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


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
