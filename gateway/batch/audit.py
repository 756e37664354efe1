"""What the audit log records of batches. Their stores are no database, so an entry follows what it records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gateway.actors.store import ActorStore
from gateway.audit import Event, Happening
from gateway.audit.work import batch_work
from gateway.batch.types import BatchFacts
from gateway.settings import GatewaySettings


def batch_happening(event: Event, name: str, ids: Sequence[str] = (), *, rows: int = 0, manifest_sha256: str = "") -> Happening:
    """Return the entry for a change of a batch.

    Args:
        event: what happened.
        name: name of the batch.
        ids: shots that were named; none: all.
        rows: number of all shots; 0: unknown.
        manifest_sha256: digest of the rows; empty: unknown.
    """
    details: dict[str, str | int | bool] = {"shots": len(ids) or "all"}
    if rows:
        details["rows"] = rows
    if manifest_sha256:
        details["manifest_sha256"] = manifest_sha256
    return Happening(event=event, work=batch_work(name), details=details)


def record_change(
    settings: GatewaySettings, change: Literal["cancelled", "retried", "removed"], name: str, ids: Sequence[str] = ()
) -> None:
    """Write the entry for a command that changes a batch.

    Args:
        settings: settings of the command.
        change: what the command does.
        name: name of the batch.
        ids: shots that were named; none: all.
    """
    _record(settings, batch_happening(Event(f"batch.{change}"), name, ids))


def record_submission(settings: GatewaySettings, facts: BatchFacts) -> None:
    """Write the entry for a batch that a command submits."""
    _record(settings, submission(facts))


def submission(facts: BatchFacts) -> Happening:
    """Return the entry for a batch that is submitted."""
    return batch_happening(Event.BATCH_SUBMITTED, facts.name, rows=facts.rows, manifest_sha256=facts.manifest_sha256)


def _record(settings: GatewaySettings, happening: Happening) -> None:
    with ActorStore(settings, claim_artefacts=False) as actors:
        actors.audit.record(happening)
