"""The gateway: people, dubs as operations, live streams."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from dubstage.client.arrays import from_image
from dubstage.client.connection import Connection
from dubstage.client.errors import DubstageCallError, from_status
from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from dubstage.gateway.v1alpha1 import gateway_pb2_grpc

POLL_SECONDS = 5.0
PROGRESS_SECONDS = 0.5
"""Between two calls of `on_progress`."""
OUTAGE_SECONDS = 120.0
"""A gateway may be away for so long, to be restarted, before those who wait for its work give up."""

M = TypeVar("M", bound=Message)

_AWAY = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})
_NOT_YET = frozenset({"MODEL_NOT_READY", "BACKEND_UNAVAILABLE"})

OnProgress = Callable[[Message], None]
"""Called with a DubProgress or an ActorProgress about twice a second."""


@dataclass(frozen=True, slots=True)
class OperationState:
    """An operation as it is now.

    Attributes:
        name: for `wait`, `cancel` and `delete_operation`.
        done: whether it has ended.
        progress: a DubProgress or an ActorProgress.
        error: why it failed; None where it has not.
    """

    name: str
    done: bool
    progress: Message
    error: DubstageCallError | None


def create_actor(connection: Connection, request: pb.CreateActorRequest) -> str:
    """Begin an enrolment; returns the operation's name.

    Raises:
        DubstageCallError: the request cannot be used, or the gateway is full.
    """
    stub = gateway_pb2_grpc.ActorServiceStub(connection.channel)
    operation: operations_pb2.Operation = connection.unary(stub.CreateActor, request)
    return str(operation.name)


def create_dub(connection: Connection, request: pb.CreateDubRequest) -> str:
    """Begin a dub; returns the operation's name.

    Raises:
        DubstageCallError: the request cannot be used, or the gateway is full.
    """
    stub = gateway_pb2_grpc.DubServiceStub(connection.channel)
    operation: operations_pb2.Operation = connection.unary(stub.CreateDub, request)
    return str(operation.name)


def enrol(
    connection: Connection,
    request: pb.CreateActorRequest,
    *,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    outage_s: float = OUTAGE_SECONDS,
) -> pb.Actor:
    """Enrol a person and wait for it; see `dub`.

    Raises:
        DubstageCallError: it failed, or took longer than `timeout_s` (it goes on then; see `wait`).
    """
    outage = _Outage(outage_s, timeout_s)
    name = outage.begun(lambda: create_actor(connection, request))
    return wait(connection, name, pb.Actor, timeout_s=outage.left_s(), on_progress=on_progress, outage_s=outage_s)


def dub(
    connection: Connection,
    request: pb.CreateDubRequest,
    *,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    outage_s: float = OUTAGE_SECONDS,
) -> pb.DubResult:
    """Dub and wait for it.

    A gateway that restarts in the meantime goes on with the dub, and this waits for it again. One that shuts down or warms up when
    the dub is to begin is asked again, too; one that breaks the connection off at that moment is not, since the dub may have begun.

    Args:
        connection: to the gateway.
        request: what to dub.
        timeout_s: longest wait; None: for ever.
        on_progress: told how far it is.
        outage_s: how long the gateway may be away.

    Raises:
        DubstageCallError: it failed, or took longer than `timeout_s` (it goes on then; see `wait`).
    """
    outage = _Outage(outage_s, timeout_s)
    name = outage.begun(lambda: create_dub(connection, request))
    return wait(connection, name, pb.DubResult, timeout_s=outage.left_s(), on_progress=on_progress, outage_s=outage_s)


def wait(
    connection: Connection,
    operation: str,
    response: type[M],
    *,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    outage_s: float = OUTAGE_SECONDS,
) -> M:
    """The result of an operation, when it has ended.

    Args:
        connection: to the gateway.
        operation: its name.
        response: DubResult or Actor, as the operation gives.
        timeout_s: longest wait; None: for ever.
        on_progress: told how far it is.
        outage_s: how long the gateway may be away: when it is back, it goes on with its operations, and so does this.

    Raises:
        DubstageCallError: it failed or was cancelled, has not ended in the time (DEADLINE_EXCEEDED), or the gateway was away for
            too long.
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    outage = _Outage(outage_s, timeout_s)
    poll_s = POLL_SECONDS if on_progress is None else PROGRESS_SECONDS
    while True:
        left = outage.left_s()
        left = poll_s if left is None else min(poll_s, left)
        if left <= 0:
            raise DubstageCallError(f"{operation} has not ended yet; it goes on", code="DEADLINE_EXCEEDED", retryable=True)
        duration = Duration()
        duration.FromMilliseconds(int(left * 1000))
        request = operations_pb2.WaitOperationRequest(name=operation, timeout=duration)
        try:
            state = connection.unary(stub.WaitOperation, request, timeout_s=left + 30)
        except DubstageCallError as error:
            # CANCELLED: not the operation, the call, by a gateway that was in a hurry to end.
            if error.code not in _AWAY:
                raise
            outage.endure(error)
            continue
        outage.over()
        if on_progress is not None:
            on_progress(_progress(state))
        if state.done:
            return _result(state, response)


class _Outage:
    """Patience with a gateway that is away, within the time that a caller allows to the whole."""

    def __init__(self, longest_s: float, timeout_s: float | None) -> None:
        self._longest_s = longest_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._since: float | None = None
        self._times = 0

    def left_s(self) -> float | None:
        """Seconds of the caller's time that are left; None: no end."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def over(self) -> None:
        """The gateway has answered."""
        self._since, self._times = None, 0

    def endure(self, error: DubstageCallError) -> None:
        """Sleep before another attempt.

        Raises:
            DubstageCallError: `error`, where patience or time is over.
        """
        now = time.monotonic()
        self._since = self._since or now
        wait_s = max(min(0.1 * 2**self._times, 2.0), min(error.retry_after_s, 10.0)) * random.uniform(1.0, 1.1)
        self._times += 1
        left = self.left_s()
        if now + wait_s - self._since > self._longest_s or (left is not None and left <= wait_s):
            raise error
        time.sleep(wait_s)

    def begun(self, create: Callable[[], str]) -> str:
        """What `create` gives, asked again while nothing can have begun: the gateway said no, or no connection came about."""
        while True:
            try:
                return create()
            except DubstageCallError as error:
                if error.reason not in _NOT_YET and not error.unsent:
                    raise
                self.endure(error)


def _progress(state: Any) -> Message:
    for kind in (pb.DubProgress, pb.ActorProgress):
        message = kind()
        if state.metadata.Unpack(message):
            return message
    raise ValueError(f"progress of an unknown kind: {state.metadata.type_url}")


def _result(state: Any, response: type[M]) -> M:
    if state.HasField("error"):
        raise from_status(state.error)
    message = response()
    if not state.response.Unpack(message):
        raise ValueError(f"{state.name} gives {state.response.type_url}, not {response.DESCRIPTOR.full_name}")
    return message


def cancel(connection: Connection, operation: str) -> None:
    """Ask an operation to stop; `wait` then raises CANCELLED.

    Raises:
        DubstageCallError: there is no such operation.
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    connection.unary(stub.CancelOperation, operations_pb2.CancelOperationRequest(name=operation))


def list_operations(connection: Connection, *, done: bool | None = None) -> Iterator[OperationState]:
    """Return all operations in the order of their submission, page by page.

    Args:
        connection: to the gateway.
        done: only those that have ended (True) or have not (False); None: all.

    Raises:
        DubstageCallError: the call failed.
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    request = operations_pb2.ListOperationsRequest(filter="" if done is None else f"done={str(done).lower()}")
    while True:
        page: Any = connection.unary(stub.ListOperations, request)
        yield from map(_state, page.operations)
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def get_operation(connection: Connection, operation: str) -> OperationState:
    """Return an operation as it is now.

    Raises:
        DubstageCallError: there is no such operation.
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    return _state(connection.unary(stub.GetOperation, operations_pb2.GetOperationRequest(name=operation)))


def delete_operation(connection: Connection, operation: str) -> None:
    """Make the gateway forget an operation that has ended. What it made stays.

    Raises:
        DubstageCallError: there is no such operation, or it has not ended.
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    connection.unary(stub.DeleteOperation, operations_pb2.DeleteOperationRequest(name=operation))


def _state(operation: Any) -> OperationState:
    error = from_status(operation.error) if operation.HasField("error") else None
    return OperationState(operation.name, operation.done, _progress(operation), error)


def list_actors(connection: Connection) -> Iterator[pb.Actor]:
    """All actors, page by page.

    Raises:
        DubstageCallError: the call failed.
    """
    stub = gateway_pb2_grpc.ActorServiceStub(connection.channel)
    token = ""
    while True:
        page: pb.ListActorsResponse = connection.unary(stub.ListActors, pb.ListActorsRequest(page_token=token))
        yield from page.actors
        token = page.next_page_token
        if not token:
            return


def erase_actor(connection: Connection, actor_id: str) -> pb.EraseActorResponse:
    """Erase a person and everything made from their footage; returns the signed receipt.

    Raises:
        DubstageCallError: there is no such actor.
    """
    stub = gateway_pb2_grpc.ActorServiceStub(connection.channel)
    reply: pb.EraseActorResponse = connection.unary(stub.EraseActor, pb.EraseActorRequest(actor_id=actor_id))
    return reply


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One dubbed frame, shown at frame_index / 25 s of the speech: uint8 RGB [H, W, 3]."""

    frame_index: int
    picture: npt.NDArray[np.uint8]
    silent: bool


def live(
    connection: Connection,
    actor_id: str,
    sound: Iterable[npt.NDArray[np.float32]],
    sample_rate_hz: int,
    *,
    channels: int = 1,
    timeout_s: float = 3600.0,
) -> Generator[LiveFrame, None, None]:
    """Dubbed frames of an actor while `sound` comes. Closing the iterator ends the stream.

    Args:
        connection: to the gateway.
        actor_id: who is shown.
        sound: pieces of float32 [n] or [n, channels]; 20 to 40 ms each for low latency. First asked for when the gateway is ready.
        sample_rate_hz: of it.
        channels: of it.
        timeout_s: longest stream.

    Raises:
        DubstageCallError: the call failed.
    """
    begun: SimpleQueue[Any] = SimpleQueue()

    def requests() -> Iterator[pb.LiveRequest]:
        yield pb.LiveRequest(config=pb.LiveConfig(actor_id=actor_id, sample_rate_hz=sample_rate_hz, channels=channels))
        begun.get().initial_metadata()
        first = 0
        for piece in sound:
            pcm = np.ascontiguousarray(piece, "<f4")
            yield pb.LiveRequest(audio=pb.LiveAudio(first_sample=first, pcm_f32=pcm.tobytes()))
            first += pcm.size // channels

    stub = gateway_pb2_grpc.DubServiceStub(connection.channel)
    for reply in connection.stream(stub.Live, requests(), timeout_s=timeout_s, on_call=begun.put):
        silent = reply.reason == common_pb2.FRAME_REASON_SILENT
        yield LiveFrame(reply.frame_index, from_image(reply.image), silent)
