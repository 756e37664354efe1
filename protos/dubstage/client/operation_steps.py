"""Steps that begin an operation of the gateway and wait for its end, as generators.

The requests and their order are written once, here. `run` carries the steps out over a Connection, `run_aio` over an
AsyncConnection.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from dubstage.client import rpcs
from dubstage.client.aio import AsyncConnection
from dubstage.client.connection import Connection
from dubstage.client.errors import DubstageCallError, from_status
from dubstage.client.rpcs import Unary

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
M = TypeVar("M", bound=Message)
G = TypeVar("G", bound=Message)

POLL_SECONDS: Final = 5.0
"""Seconds between two requests of `wait` without `on_progress`."""
EARLY_SECONDS: Final = 1.0
"""Most seconds before the next request of `wait` if the gateway answered at once, because too many calls wait there already."""
PROGRESS_SECONDS: Final = 0.5
"""Seconds between two calls of `on_progress`."""
OUTAGE_SECONDS: Final = 120.0
"""Seconds that a gateway may be away, to be restarted, before a caller gives up."""

_AWAY: Final = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})
_BROKEN: Final = frozenset({"UNAVAILABLE", "CANCELLED"})
_NOT_YET: Final = frozenset({"MODEL_NOT_READY", "BACKEND_UNAVAILABLE"})


@dataclass(frozen=True, slots=True)
class Kind(Generic[M, G]):
    """A kind of operation.

    Attributes:
        result: message class of the result.
        progress: message class of the progress.
    """

    result: type[M]
    progress: type[G]


class Ask(NamedTuple):
    """A step: send a request. The response, or the DubstageCallError, goes back into the generator."""

    rpc: Unary[Any, Any]
    request: Message
    timeout_s: float | None = None


class Pause(NamedTuple):
    """A step: wait."""

    seconds: float


Steps = Generator[Ask | Pause, Any, T]


class _Running(Generic[T]):
    """Steps under way: the step to carry out now, and the result once there is no further step."""

    step: Ask | Pause | None
    result: T

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.reply(None)

    def reply(self, reply: Any) -> None:
        """Go on with the reply to a request."""
        self._go_on(self._steps.send, reply)

    def fail(self, error: DubstageCallError) -> None:
        """Go on with the error of a request."""
        self._go_on(self._steps.throw, error)

    def _go_on(self, resume: Callable[[Any], Ask | Pause], value: Any) -> None:
        try:
            self.step = resume(value)
        except StopIteration as end:
            self.step, self.result = None, end.value


def run(connection: Connection, steps: Steps[T]) -> T:
    """Carry out steps over a connection and return their result."""
    running = _Running(steps)
    while (step := running.step) is not None:
        reply: Any = None
        try:
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                reply = connection.unary(step.rpc, step.request, timeout_s=step.timeout_s)
        except DubstageCallError as error:
            running.fail(error)
        else:
            running.reply(reply)
    return running.result


async def run_aio(connection: AsyncConnection, steps: Steps[T]) -> T:
    """Carry out steps over a connection and return their result."""
    running = _Running(steps)
    while (step := running.step) is not None:
        reply: Any = None
        try:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                reply = await connection.unary(step.rpc, step.request, timeout_s=step.timeout_s)
        except DubstageCallError as error:
            running.fail(error)
        else:
            running.reply(reply)
    return running.result


class Patience:
    """Patience with a gateway that is away, within the time that a caller allows to the whole.

    Args:
        outage_s: longest time without an answer, seconds.
        timeout_s: time allowed to the whole, seconds; None: no limit.
    """

    def __init__(self, outage_s: float, timeout_s: float | None = None) -> None:
        self._outage_s = outage_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._since: float | None = None
        self._times = 0

    def left_s(self) -> float | None:
        """Return the seconds that are left of the caller's time; None: no limit."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def answered(self) -> None:
        """Note that the gateway has answered."""
        self._since, self._times = None, 0

    def pause_s(self, error: DubstageCallError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            DubstageCallError: `error`, if patience or time is over.
        """
        now = time.monotonic()
        self._since = self._since or now
        wait_s: float = max(min(0.1 * 2 ** min(self._times, 5), 2.0), min(error.retry_after_s, 10.0)) * random.uniform(1.0, 1.1)
        self._times += 1
        left = self.left_s()
        if now + wait_s - self._since > self._outage_s or (left is not None and left <= wait_s):
            raise error
        return wait_s


def begin_steps(rpc: Unary[Q, operations_pb2.Operation], request: Q, patience: Patience) -> Steps[str]:
    """Begin an operation and return its name.

    The request is sent again while the gateway shuts down, warms up, has no database, or cannot be reached. If the connection
    broke, the operation may have begun: the gateway then answers the second request with the same operation, by its `request_id`.
    """
    identified = bool(getattr(request, "request_id", ""))
    while True:
        try:
            operation: Any = yield Ask(rpc, request)
        except DubstageCallError as error:
            if error.reason not in _NOT_YET and not error.unsent and not (identified and error.code in _BROKEN):
                raise
            pause_s = patience.pause_s(error)
        else:
            return str(operation.name)
        yield Pause(pause_s)


def wait_steps(name: str, kind: Kind[M, G], patience: Patience, on_progress: Callable[[G], None] | None) -> Steps[M]:
    """Wait for the end of an operation and return its result.

    The request is sent again while the gateway is away, or refuses the request because of too many calls: the operation goes on. If
    too many calls wait there already, the gateway answers at once: the next request comes after a pause.
    """
    poll_s = POLL_SECONDS if on_progress is None else PROGRESS_SECONDS
    while True:
        left = patience.left_s()
        left = poll_s if left is None else min(poll_s, left)
        asked_at = time.monotonic()
        if left <= 0:
            raise DubstageCallError(f"{name} has not ended yet; it goes on", code="DEADLINE_EXCEEDED", retryable=True)
        try:
            state: Any = yield Ask(rpcs.operations.WAIT_OPERATION, wait_request(name, left), left + 30)
        except DubstageCallError as error:
            # CANCELLED: not the operation, the call, by a gateway that was in a hurry to end.
            # OVERLOADED: the gateway has too many calls at once for this one.
            if error.code not in _AWAY and error.reason != "OVERLOADED":
                raise
            pause_s = patience.pause_s(error)
        else:
            patience.answered()
            if on_progress is not None:
                on_progress(unpacked(state.metadata, kind.progress, name))
            if state.HasField("error"):
                raise from_status(state.error)
            if state.done:
                return unpacked(state.response, kind.result, name)
            pause_s = min(asked_at + left - time.monotonic(), EARLY_SECONDS)
        if pause_s > 0:
            yield Pause(pause_s)


def wait_request(name: str, longest_s: float) -> operations_pb2.WaitOperationRequest:
    """Return the request that waits at most `longest_s` seconds for the end of an operation."""
    duration = Duration()
    duration.FromMilliseconds(int(longest_s * 1000))
    return operations_pb2.WaitOperationRequest(name=name, timeout=duration)


def unpacked(value: Any, kind: type[M], name: str) -> M:
    """Return the message of class `kind` that an Any holds; `name` is the operation's, for the error."""
    message = kind()
    if not value.Unpack(message):
        raise ValueError(f"{name} gives {value.type_url}, not {kind.DESCRIPTOR.full_name}")
    return message
