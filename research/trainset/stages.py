"""The stages that a training set needs, in this process, and digests of their networks."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, TypeVar

from google.protobuf.message import Message

from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.stages.interface import stage_of
from gateway.stages.local import LocalStages, compose_stages
from gateway.stages.opening import weights_of
from services.common.errors import ModelNotFound

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_NETWORKS: Final = {"audio": "*.onnx", "motion": "lag.safetensors"}
"""Models that make parts of a training set: patterns of file names in the stage's folder of weights."""


class StagesOnDemand:
    """`Stages` in this process; a stage is loaded at its first call.

    A set of recordings needs no face stage, and a finished set needs no stage at all.
    """

    face_model: Final = ""
    call_deadline_s: Final = None

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._loaded: dict[str, LocalStages] = {}

    async def aclose(self) -> None:
        """End the stages."""
        await self._stack.aclose()

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response."""
        return await (await self._stage(rpc)).unary(rpc, request)

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response."""
        return await (await self._stage(rpc)).upload(rpc, requests)

    async def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        async for reply in (await self._stage(rpc)).download(rpc, request):
            yield reply

    async def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        async for reply in (await self._stage(rpc)).stream(rpc, requests):
            yield reply

    async def _stage(self, rpc: Rpc[Q, R]) -> LocalStages:
        name = stage_of(rpc)
        if name not in self._loaded:
            # Several processes work side by side, so a computation takes one thread.
            stages = LocalStages(compose_stages(names=(name,), compute_threads=1))
            self._loaded[name] = await self._stack.enter_async_context(stages)
        return self._loaded[name]


def networks_digest(stage: str) -> str:
    """Return a digest of a stage's models that make parts of a training set. Equal files give equal digests.

    Args:
        stage: `audio` or `motion`.

    Raises:
        ModelNotFound: the folder of weights that the stage's settings name holds no such model.
        InvalidRequest: a setting is wrong.
    """
    folder = weights_of(stage)
    digest = hashlib.sha256()
    files = sorted(folder.glob(_NETWORKS[stage]))
    if not files:
        raise ModelNotFound(f"{folder} holds no {_NETWORKS[stage]}: check DUBSTAGE_{stage.upper()}_WEIGHTS", resource=str(folder))
    for path in files:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
