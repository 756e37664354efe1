"""Documents of the option --json: the messages that the HTTP API answers with for the same things, with its names of fields.

Commands import this module for --json alone: it needs the contracts and NumPy.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dubstage.gateway.v1 import batch_pb2
from gateway.actors.consents import Withdrawal
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.actors.stored import ActorSummary
from gateway.api.batch_service import batch_message, listed_message, shown_shot
from gateway.api.convert import (
    actor_message,
    estimate_message,
    faces_message,
    receipt_message,
    result_message,
    withdrawal_message,
)
from gateway.api.resources import json_of
from gateway.audit.entries import EventKind
from gateway.batch.changes import ask_cluster
from gateway.batch.lists import ShotQuery
from gateway.batch.records import progress_from
from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts
from gateway.cli.console import printable, shown_path
from gateway.provenance.binding import media_sha256

if TYPE_CHECKING:
    from gateway.dub.job.estimate import DubEstimate
    from gateway.dub.job.outcome import DubOutcome
    from gateway.dub.learn.face_list import FaceList
    from gateway.dub.request.dub_request import DubRequest


def actor_documents(store: ActorStore, actors: Sequence[ActorSummary]) -> list[dict[str, Any]]:
    """Return actors as `GET /v1/actors` does, with their numbers of dubs."""
    counts = store.audit.counts(EventKind.DUB_ENDED, [actor.actor_id for actor in actors])
    return [json_of(actor_message(actor, counts.get(actor.actor_id, 0))) for actor in actors]


def receipt_document(receipt: ErasureReceipt, public_key: str) -> dict[str, Any]:
    """Return the receipt of an erasure as `DELETE /v1/actors/ID` does.

    Args:
        public_key: public key of this installation, PEM; empty: another installation signed the receipt.
    """
    return json_of(receipt_message(receipt, public_key))


def withdrawal_document(withdrawal: Withdrawal) -> dict[str, Any]:
    """Return a withdrawal as `POST /v1/consents:revoke` does."""
    return json_of(withdrawal_message(withdrawal))


def dub_document(request: DubRequest, outcome: DubOutcome, output: Path) -> dict[str, Any]:
    """Return the result of a dub as the operation of `POST /v1/dubs` does.

    Args:
        output: the video, or the pattern of the frames, that the user asked for.
    """
    message = result_message(shown_path(output), request, outcome)
    if output.is_file():
        message.media_sha256 = media_sha256(output)
    message.warnings[:] = [printable(warning) for warning in (*outcome.warnings, *outcome.written.dropped)]
    message.undubbed = printable(outcome.undubbed)
    return json_of(message)


def estimate_document(estimate: DubEstimate) -> dict[str, Any]:
    """Return an estimate as `POST /v1/dubs:estimate` does."""
    return json_of(estimate_message(estimate))


def faces_document(face_list: FaceList) -> dict[str, Any]:
    """Return the faces of a video as the operation of `POST /v1/faces:detect` does, without pictures."""
    return json_of(faces_message(face_list, pictures=False))


def batches_document(batches: Iterable[BatchFacts]) -> dict[str, Any]:
    """Return batches as `GET /v1/batches` does."""
    return json_of(batch_pb2.ListBatchesResponse(batches=map(batch_message, batches)))


def batch_document(store: BatchStore, name: str) -> dict[str, Any]:
    """Return a batch with its progress as `GET /v1/batches/ID` does.

    Raises:
        BatchNotFoundError: there is no such batch.
    """
    facts = store.facts(name)
    notes = ask_cluster(store, facts)
    work = store.work(name)
    progress, reviews = progress_from(work, now_s=time.time()), Counter(shot.review for shot in work)
    return json_of(batch_message(facts, progress, [printable(note) for note in notes], reviews))


def shots_document(store: BatchStore, name: str, query: ShotQuery, limit: int | None) -> dict[str, Any]:
    """Return shots of a batch as `GET /v1/batches/ID/shots` does.

    Args:
        query: shots that are asked for.
        limit: most shots; None: all.
    """
    shots = store.shots(name, query, limit)
    return json_of(batch_pb2.ListShotsResponse(shots=[listed_message(name, one, printable) for one in shots]))


def shot_document(store: BatchStore, name: str, shot_id: str) -> dict[str, Any]:
    """Return a shot with all decisions as `GET /v1/batches/ID/shots/ID` does.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
    """
    return json_of(shown_shot(store, name, shot_id, printable))
