"""Interface of the stages for the gateway: any RPC of `dubstage.client.rpcs`, by its kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

STAGE_NAMES: Final = ("audio", "face", "motion", "texture", "render")


class Stages(Protocol):
    """The five stages, in this process or behind gRPC. Every call raises DubstageError, wherever the stage runs."""

    @property
    def face_model(self) -> str:
        """Name of the face model that people of this installation are fitted on; empty: the face stage's own."""
        ...

    @property
    def call_deadline_s(self) -> float | None:
        """Longest time of one call, seconds; None: calls have no deadline, because the stages are in this process."""
        ...

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response."""
        ...

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response."""
        ...

    def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        ...

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        ...


def stage_of(rpc: Rpc[Any, Any]) -> str:
    """Return the name of the stage that serves an RPC, one of STAGE_NAMES."""
    return rpc.service.split(".")[1]
