"""The stages inside this process: their servicers are called by the same contracts, without a server in between."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.stages.interface import STAGE_NAMES, stage_of
from services.common.server.bounds import check_bounds
from services.common.server.process import StageParts
from services.common.server.settings import load_settings

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


def compose_stages(
    artefacts_url: str | None = None, *, names: Collection[str] = STAGE_NAMES, compute_threads: int | None = None
) -> dict[str, StageParts]:
    """Return stages by name, composed from their own settings (environment) on one artefact store, not warm yet.

    Args:
        artefacts_url: address of the store; None: the address in the stages' settings.
        names: stages to compose. Other stages are not even imported.
        compute_threads: threads of one computation; None: the number in the stages' settings.
    """
    given: dict[str, object] = {"artefacts_url": artefacts_url, "compute_threads": compute_threads}
    return {name: _compose(name, given) for name in STAGE_NAMES if name in names}


def _compose(name: str, given: dict[str, object]) -> StageParts:
    settings = importlib.import_module(f"services.{name}.settings")
    module = importlib.import_module(f"services.{name}.__main__")
    parts: StageParts = module.compose(load_settings(getattr(settings, f"{name.capitalize()}Settings"), **given))
    return parts


class LocalStages:
    """`Stages` in this process: an async context manager that shuts the stages' workers down.

    Args:
        parts: the composed stages by name. Each servicer's handler is called by the name of the RPC's method.
        face_model: name of the face model that people are fitted on; empty: the face stage's own.
        warm_up: load all networks at the start. False: files are checked, and each call loads the networks that it needs.
    """

    def __init__(self, parts: Mapping[str, StageParts], *, face_model: str = "", warm_up: bool = False) -> None:
        self._parts, self.face_model, self._warm_up = parts, face_model, warm_up
        self.call_deadline_s: float | None = None
        # The handlers are those that the generated base classes declare. They get no server context here, and need none.
        self._servicers: dict[str, Any] = {name: part.servicer for name, part in parts.items()}

    @property
    def busy(self) -> bool:
        """Whether a worker still computes, even if no caller waits for the result any more."""
        return any(pool.pending for part in self._parts.values() for pool in part.workers)

    async def __aenter__(self) -> Self:
        # librosa and numba import parts of this package in different orders. Two threads that do so at the same time block each
        # other, and Python then raises an error in one of them.
        await asyncio.to_thread(importlib.import_module, "scipy.linalg")
        # Damaged weights end a command now, not after the long passes before the call that needs them.
        parts = self._parts.values()
        await asyncio.gather(*(asyncio.to_thread(part.warm_up if self._warm_up else part.check) for part in parts))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self._parts.values():
            for pool in part.workers:
                pool.shutdown()
            if part.close is not None:
                await asyncio.to_thread(part.close)

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response."""
        reply: R = await self._handler(rpc)(_checked(request), None)
        return reply

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response."""
        reply: R = await self._handler(rpc)(_EachChecked(requests), None)
        return reply

    def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        replies: AsyncIterator[R] = self._handler(rpc)(_checked(request), None)
        return replies

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        replies: AsyncIterator[R] = self._handler(rpc)(_EachChecked(requests), None)
        return replies

    def _handler(self, rpc: Rpc[Q, R]) -> Callable[..., Any]:
        handler: Callable[..., Any] = getattr(self._servicers[stage_of(rpc)], rpc.method)
        return handler


def _checked(request: Q) -> Q:
    """Return the request, checked against its declared bounds as a server checks it.

    Raises:
        InvalidRequestError: a field is outside its bounds.
    """
    check_bounds(request)
    return request


class _EachChecked(AsyncIterator[Q]):
    """Requests, each checked against its bounds. Not a generator: the maker of the requests closes them."""

    def __init__(self, requests: AsyncIterator[Q]) -> None:
        self._requests = requests

    async def __anext__(self) -> Q:
        return _checked(await anext(self._requests))
