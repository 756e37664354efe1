"""Removal of the consent records of a scene from its operation, when a person of the scene is erased."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import select, update

from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.database.session import Database
from gateway.dub.request.spec_text import ACTORS, drop_records, names_actor
from gateway.operations.store import DUB, OperationRow

_AT_ONCE: Final = 200
"""Operations that are read at once."""


def is_about(request: bytes, actor_id: str) -> bool:
    """Return whether the request of an operation of the kind DUB names an enrolled actor, also beside the actor of its row.

    Raises:
        DecodeError: a request with the text of the actor's name is damaged.
    """
    if f"{ACTORS}{actor_id}".encode() not in request:
        return False
    return names_actor(pb.CreateDubRequest.FromString(request).dub, actor_id)


class SceneRecords:
    """Consent records in the requests of scenes. All methods block.

    The row of an operation names one actor, and goes with this actor. The request of a scene holds the records of all its people.
    When another actor of the scene is erased, the operation stays without records: the scene cannot be dubbed again.

    Each method raises StorageRefusedError or BackendUnavailableError if the database cannot be used, and StorageRefusedError if a
    request that names the actor is damaged.

    Args:
        database: database of the operations.
    """

    place = "operations of scenes"

    def __init__(self, database: Database) -> None:
        self._database = database

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove the records of all scenes of an actor. Nothing of the person's footage is in them: no digest is returned."""
        for number, request in self._scenes(actor_id):
            if drop_records(request.dub):
                changed = update(OperationRow).where(OperationRow.number == number)
                with self._database.writing() as session:
                    session.execute(changed.values(request=request.SerializeToString()))
        return {}

    def left(self, actor_id: str) -> tuple[int, list[str]]:
        """Return the number of the actor's scenes, and the operations whose requests still have records."""
        scenes = list(self._scenes(actor_id))
        return len(scenes), [f"consent record of operation {number}" for number, request in scenes if drop_records(request.dub)]

    def _is_about(self, number: int, request: bytes, actor_id: str) -> bool:
        try:
            return is_about(request, actor_id)
        except DecodeError as problem:
            raise self._database.damaged(f"request of operation {number}: {problem}") from problem

    def _scenes(self, actor_id: str) -> Iterator[tuple[int, pb.CreateDubRequest]]:
        """Yield number and request of each scene that names an actor beside the actor of its row."""
        columns = select(OperationRow.number, OperationRow.request).order_by(OperationRow.number).limit(_AT_ONCE)
        # The rows of the actor go with the actor. An operation without an actor is no scene of enrolled people.
        query = columns.where(OperationRow.kind == DUB, OperationRow.actor_id.not_in(["", actor_id]))
        last = 0
        while True:
            with self._database.reading() as session:
                rows = session.execute(query.where(OperationRow.number > last)).all()
            for number, request in rows:
                if self._is_about(number, request, actor_id):
                    yield number, pb.CreateDubRequest.FromString(request)
            if not rows:
                return
            last = rows[-1].number
