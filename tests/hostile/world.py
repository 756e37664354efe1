"""The world that the cases work on: the running servers, valid requests, and a folder of its own for each case."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2
from services.common.store.artefacts import ArtefactStore
from tests.hostile.bases import ACTOR, PERSON, Rpc, bases, every_rpc, refs_of
from tests.hostile.door import Door
from tests.hostile.machine import MACHINE
from tests.hostile.servers import Servers
from tests.hostile.shelf import MediaShelf

if TYPE_CHECKING:
    from tests.hostile.stores import Kept

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
OPERATIONS = "/google.longrunning.Operations/"
SETTLE_S = 240.0
"""Seconds in which an operation ends that was cancelled, on a free machine."""
BUSY_S = 120.0
"""Seconds for which a call that must succeed is made again while the server has too many calls, on a free machine."""
REFUSED_STREAM = "RST_STREAM with error code 7"
"""Text of HTTP/2 about a call that a server has not begun, because the connection has as many as the server takes."""
GOOD_MEDIA = ("footage.mp4", "other.mp4", "speech.wav")
"""Files of the media folder besides the files of cases."""


def retry_after_s(error: grpc.RpcError) -> float | None:
    """Return when a call is to be made again that found no room, seconds; None: the call failed for another reason."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and REFUSED_STREAM in (error.details() or ""):
        return 1.0
    status = rpc_status.from_call(error) if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    retry = error_details_pb2.RetryInfo()
    if status is None or not any(detail.Unpack(retry) for detail in status.details):
        return None
    return float(retry.retry_delay.ToTimedelta().total_seconds())


class World:
    """Servers, requests and folders; a context manager.

    Args:
        folder: of the campaign; empty.
        carphone: real footage.
        astronaut: a real portrait.
    """

    def __init__(self, folder: Path, carphone: Path, astronaut: Path) -> None:
        self.folder = folder
        self.servers = Servers(folder / "servers")
        self.rpcs: dict[str, Rpc] = every_rpc()
        self.shelf = MediaShelf(folder / "shelf", carphone, astronaut)
        self.bases: dict[str, list[list[Message]]] = {}
        self.refs: dict[str, common_pb2.ArtefactRef] = {}
        self._kept: Kept | None = None
        self._kept_lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self.live_places = threading.Lock()
        """Held by cases that take all of the gateway's live streams, or need one of them."""
        self.made: set[str] = set()
        """Videos that operations of cases wrote before they were cancelled: paths in the media folder."""
        self.door = Door(self.servers)
        self._lock = threading.Lock()
        self._sandboxes = 0

    def __enter__(self) -> Self:
        self.shelf.stock()
        for name in GOOD_MEDIA:
            target = self.servers.media / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self.shelf.folder / name).read_bytes())
        self.servers.start()
        self.refs = refs_of(self.call, ArtefactStore(str(self.servers.store)))
        self.bases = bases(self.call, self.refs)
        self.enrol(ACTOR)
        uploads = self.servers.media / "uploads"
        uploads.mkdir(exist_ok=True)
        (uploads / "hostile.bin").write_bytes(b"123456")
        self._open_door()
        return self

    def _open_door(self) -> None:
        self.door.stock([self.shelf.folder / name for name in GOOD_MEDIA])
        self.open_counts = self.servers.counts()

    def __exit__(self, *_: object) -> None:
        self.forget_channels()
        self.servers.stop()

    @property
    def kept(self) -> Kept:
        """Stores to damage copies of; made when the first case asks for them."""
        from tests.hostile.stores import Kept

        with self._kept_lock:
            if self._kept is None:
                made = Kept(self.folder / "kept")
                made.make(self)
                self._kept = made
            return self._kept

    def channel(self, server: str) -> grpc.Channel:
        """The campaign's channel to a server; it sets no limit to messages."""
        with self._lock:
            if server not in self._channels:
                self._channels[server] = self.new_channel(server)
            return self._channels[server]

    def new_channel(self, server: str) -> grpc.Channel:
        """A connection of a case's own."""
        return grpc.insecure_channel(self.servers.addresses[server], [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)])

    def forget_channels(self) -> None:
        """Close all channels: after a restart of the servers, or at the end."""
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def restart(self) -> None:
        """Servers of the same folder anew."""
        self.forget_channels()
        self.servers.stop()
        self.servers.start()
        self._open_door()

    def call(self, server: str, method: str, requests: Sequence[Message]) -> list[Message]:
        """The answers of a call that must succeed. While cases have all places, the call is made again, as the server says."""
        rpc = next(rpc for rpc in self.rpcs.values() if rpc.name == method)
        data = [request.SerializeToString() for request in requests]
        begun = time.monotonic()
        while True:
            sent: Any = iter(data) if rpc.requests_stream else data[0]
            try:
                answer = rpc.callable(self.channel(server))(sent, timeout=MACHINE.bound(SETTLE_S))
                return list(answer) if rpc.responses_stream else [answer]
            except grpc.RpcError as error:
                wait_s = retry_after_s(error)
                if wait_s is None or time.monotonic() - begun > MACHINE.bound(BUSY_S, since=begun):
                    raise
                time.sleep(min(wait_s, 5.0))

    def enrol(self, actor_id: str, footage: str = "footage.mp4") -> None:
        """Enrol the person of the clip at the gateway, without adapted networks."""
        request = gateway_pb2.CreateActorRequest(actor_id=actor_id, footage_uri=footage, skip_personalization=True, consent=PERSON)
        (operation,) = self.call("gateway", "/dubstage.gateway.v1.ActorService/CreateActor", [request])
        ended = self.ended(operation.name)  # type: ignore[attr-defined]
        if not ended.HasField("response"):
            raise RuntimeError(f"the campaign's actor could not be enrolled: {ended}")

    def operation(self, method: str, request: Message) -> list[Message]:
        """Calls google.longrunning.Operations."""
        return self.call("gateway", OPERATIONS + method, [request])

    def settle(self, name: str) -> operations_pb2.Operation:
        """Cancel an operation that a case began, and wait until it has ended."""
        self.operation("CancelOperation", operations_pb2.CancelOperationRequest(name=name))
        operation = self.ended(name)
        result = gateway_pb2.DubResult()
        if operation.response.Unpack(result):
            self.made.add(result.output_uri)
        return operation

    def ended(self, name: str) -> operations_pb2.Operation:
        """An operation when it has ended, or as it is after SETTLE_S of a free machine.

        Where too many calls wait, a server answers with the operation as it is.
        """
        begun = time.monotonic()
        while True:
            (operation,) = self.operation("WaitOperation", operations_pb2.WaitOperationRequest(name=name))
            if operation.done or time.monotonic() - begun > MACHINE.bound(SETTLE_S, since=begun):  # type: ignore[attr-defined]
                return operation  # type: ignore[return-value]
            time.sleep(0.5)

    def sandbox(self) -> Path:
        """A new folder for one case."""
        with self._lock:
            self._sandboxes += 1
            folder = self.folder / "cases" / f"{self._sandboxes:06d}"
        for name in ("cwd", "home", "tmp", "out", "data"):
            (folder / name).mkdir(parents=True)
        return folder
