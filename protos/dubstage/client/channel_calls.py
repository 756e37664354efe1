"""Base of the connections for threads and for asyncio: target, time and token of their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dubstage.client.channels import CALL_S
from dubstage.client.rpcs import Rpc

C = TypeVar("C")


class ChannelCalls(Generic[C]):
    """A channel to one server, with the options of the calls.

    Attributes:
        channel: the gRPC channel.
        target: HOST:PORT.
        timeout_s: seconds that every call may take; None: each call has a time of its own.
    """

    def __init__(self, target: str, channel: C, metadata: tuple[tuple[str, str], ...], timeout_s: float | None) -> None:
        self.target = target
        self.channel = channel
        self.timeout_s = timeout_s
        self._metadata = metadata
        self._callables: dict[Rpc[Any, Any], Callable[..., Any]] = {}

    def _callable(self, rpc: Rpc[Any, Any], make: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
        if rpc not in self._callables:
            self._callables[rpc] = make(rpc.path, **rpc.serialisers)
        return self._callables[rpc]

    def _options(self, timeout_s: float | None) -> dict[str, Any]:
        return {"timeout": timeout_s or self.timeout_s or CALL_S, "metadata": self._metadata}
