"""The world that the cases work on: the running servers, valid requests, and a folder of its own for each case."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2
from services.common.store.artefacts import ArtefactStore
from tests.hostile.bases import ACTOR, PERSON, Rpc, bases, every_rpc, refs_of
from tests.hostile.servers import Servers
from tests.hostile.shelf import MediaShelf

if TYPE_CHECKING:
    from tests.hostile.stores import Kept

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
OPERATIONS = "/google.longrunning.Operations/"
SETTLE_S = 240.0
GOOD_MEDIA = ("footage.mp4", "other.mp4", "speech.wav")
"""Files of the media folder besides the files of cases."""


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
        return self

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

    def call(self, server: str, method: str, requests: Sequence[Message]) -> list[Message]:
        """The answers of a call that must succeed."""
        rpc = next(rpc for rpc in self.rpcs.values() if rpc.name == method)
        data = [request.SerializeToString() for request in requests]
        sent: Any = iter(data) if rpc.requests_stream else data[0]
        answer = rpc.callable(self.channel(server))(sent, timeout=SETTLE_S)
        return list(answer) if rpc.responses_stream else [answer]

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
        return self.ended(name)

    def ended(self, name: str) -> operations_pb2.Operation:
        """An operation when it has ended, or as it is after about SETTLE_S."""
        (operation,) = self.operation("WaitOperation", operations_pb2.WaitOperationRequest(name=name))
        return operation  # type: ignore[return-value]

    def sandbox(self) -> Path:
        """A new folder for one case."""
        with self._lock:
            self._sandboxes += 1
            folder = self.folder / "cases" / f"{self._sandboxes:06d}"
        for name in ("cwd", "home", "tmp", "out", "data"):
            (folder / name).mkdir(parents=True)
        return folder
