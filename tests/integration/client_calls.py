"""Calls of tests to a gateway as a client, and waits for their results."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import update

from dubstage.client import Connection, batch
from dubstage.client import gateway as client
from dubstage.gateway.v1 import batch_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.consent.record import Consent, digest_of
from gateway.database.session import Database
from gateway.database.tables import ActorRow
from tests.unit.consent.records import of_footage


def enrolment(
    actor_id: str, *, consent: bool = True, footage: str = "footage.mp4", method: str = "", of: Path | None = None
) -> dict[str, Any]:
    """Arguments of the client's `enrol` for the man of the short clip. The record names him by the file `of`, if there is one."""
    person: dict[str, Any] = dict.fromkeys(("subject", "granted_by"), "driver")
    record = {**person, "scope": "tests", "date": "2026-01-31", "reference": "box 7", **(of_footage(of) if of else {})}
    fields = {"actor_id": actor_id, "footage": footage, "method": method, "personalize": False}
    return {**fields, "consent": record if consent else None}


def dubbing(output: str, /, **fields: Any) -> dict[str, Any]:
    """Return the arguments of the client's `dub` for the short clip and the short speech."""
    return {"footage": "footage.mp4", "speech": "speech.wav", "output": output, "personalize": False, **fields}


def progress(state: client.OperationState) -> pb.OperationProgress:
    """The progress of an operation that dubs."""
    assert isinstance(state.progress, pb.OperationProgress)
    return state.progress


def batch_ended(connection: Connection, name: str, rows: Sequence[batch_pb2.BatchRow] = ()) -> batch_pb2.Batch:
    """Submit rows, if there are any, and return the batch once all of its shots have ended."""
    if rows:
        batch.submit(connection, name, rows=rows)
    *_, ended = batch.watch(connection, name)
    return ended


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition. The bound only keeps a test that fails from waiting for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def give(data: Path, actor_id: str, consent: Consent | None) -> None:
    """Write a record into an actor's row, as if the person had been enrolled with it."""
    with closing(Database("", data)) as database, database.writing() as session:
        fields, digest = (consent.fields(), digest_of(consent)) if consent is not None else (None, "")
        session.execute(update(ActorRow).where(ActorRow.actor_id == actor_id).values(consent=fields, consent_sha256=digest))


def with_consent(consent: Consent | None) -> dict[str, Any]:
    """Arguments of the client's `dub` for a dub with a record, or without one."""
    return {"consent": consent.fields()} if consent is not None else {}
