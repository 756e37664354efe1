"""The stages behind gRPC: one channel for each stage. A channel may stand for several replicas.

Unary calls are tried again here. Calls that stream are tried again by the owner of the unit of work, who can make the requests anew
(`gateway.stages.calls`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.stages.calls import JOB_POLICY
from gateway.stages.interface import STAGE_NAMES, stage_of
from services.common.errors import StageDeadlineExceededError
from services.common.server.client import ClientConfig, StageClient

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class RemoteStages:
    """`Stages` over gRPC channels: an async context manager that closes the channels.

    Args:
        configs: a ClientConfig for each of STAGE_NAMES.
        face_model: name of the face model that people are fitted on; empty: the face stage's own.
        server_deadline_s: longest time that the servers allow to a call, seconds; None: not known.
    """

    def __init__(
        self, configs: Mapping[str, ClientConfig], *, face_model: str = "", server_deadline_s: float | None = None
    ) -> None:
        self.face_model = face_model
        own = [configs[name].deadline_s for name in STAGE_NAMES]
        self.call_deadline_s: float | None = min([*own, *([server_deadline_s] if server_deadline_s is not None else [])])
        self._configs = {name: replace(configs[name], only_serving=True) for name in STAGE_NAMES}
        self._clients = {name: StageClient(config) for name, config in self._configs.items()}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients.values():
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def wait_until_serving(self, timeout_s: float, names: Collection[str] = STAGE_NAMES) -> None:
        """Wait until each of some stages has a replica that is warm and serves.

        Raises:
            StageDeadlineExceededError: a stage does not answer, or is not ready in the time; the message names the stage.
        """
        deadline = time.monotonic() + timeout_s
        for name in names:
            client = self._clients[name]
            try:
                # The channel counts only replicas that serve.
                await client.wait_until_reachable(max(0.1, deadline - time.monotonic()))
            except StageDeadlineExceededError:
                if await self._answers(name):
                    raise StageDeadlineExceededError(
                        f"{client.peer} answers, but does not serve after {timeout_s:g} s: see its log"
                    ) from None
                raise

    async def _answers(self, name: str) -> bool:
        async with StageClient(replace(self._configs[name], only_serving=False)) as client:
            try:
                stub: Any = health_pb2_grpc.HealthStub(client.channel)
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
            except grpc.aio.AioRpcError:
                return False
            return True

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response; failures that may pass are tried again by JOB_POLICY."""
        return await self._client(rpc).unary(rpc, request, policy=JOB_POLICY)

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response; there is one attempt."""
        return await self._client(rpc).connection.upload(rpc, requests)

    def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        return self._client(rpc).connection.download(rpc, request)

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        return self._client(rpc).connection.stream(rpc, requests)

    def _client(self, rpc: Rpc[Any, Any]) -> StageClient:
        return self._clients[stage_of(rpc)]
