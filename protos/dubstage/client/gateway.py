"""The gateway: people, dubs as operations, live streams."""

from __future__ import annotations

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

M = TypeVar("M", bound=Message)

OnProgress = Callable[[Message], None]
"""Told of a DubProgress or an ActorProgress every few seconds, at most."""


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
    connection: Connection, request: pb.CreateActorRequest, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
) -> pb.Actor:
    """Enrol a person and wait for it.

    Raises:
        DubstageCallError: it failed, or took longer than `timeout_s` (it goes on then; see `wait`).
    """
    return wait(connection, create_actor(connection, request), pb.Actor, timeout_s=timeout_s, on_progress=on_progress)


def dub(
    connection: Connection, request: pb.CreateDubRequest, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
) -> pb.DubResult:
    """Dub and wait for it.

    Raises:
        DubstageCallError: it failed, or took longer than `timeout_s` (it goes on then; see `wait`).
    """
    return wait(connection, create_dub(connection, request), pb.DubResult, timeout_s=timeout_s, on_progress=on_progress)


def wait(
    connection: Connection,
    operation: str,
    response: type[M],
    *,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
) -> M:
    """The result of an operation, when it has ended.

    Args:
        connection: to the gateway.
        operation: its name.
        response: DubResult or Actor, as the operation gives.
        timeout_s: longest wait; None: for ever.
        on_progress: told how far it is.

    Raises:
        DubstageCallError: it failed or was cancelled, or has not ended in the time (DEADLINE_EXCEEDED).
    """
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic())
        if left <= 0:
            raise DubstageCallError(f"{operation} has not ended yet; it goes on", code="DEADLINE_EXCEEDED", retryable=True)
        duration = Duration()
        duration.FromMilliseconds(int(left * 1000))
        request = operations_pb2.WaitOperationRequest(name=operation, timeout=duration)
        state = connection.unary(stub.WaitOperation, request, timeout_s=left + 30)
        if on_progress is not None:
            on_progress(_progress(state))
        if state.done:
            return _result(state, response)


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
