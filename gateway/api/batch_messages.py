"""Messages of BatchService from the gateway's own types, and the pages of its lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import batch_pb2 as pb
from dubstage.gateway.v1alpha1 import gateway_pb2
from gateway.batch.progress import Progress
from gateway.batch.types import BatchFacts, Shot, ShotRecord, ShotState
from services.common.errors import InvalidRequest

Told = Callable[[str], str]
"""Returns a text without the server's folders."""

_ENGINES: Final = {
    "gateway": pb.BATCH_ENGINE_GATEWAY,
    "kubernetes": pb.BATCH_ENGINE_KUBERNETES,
    "local": pb.BATCH_ENGINE_LOCAL,
    "farm": pb.BATCH_ENGINE_FARM,
}
_STATES: Final = {
    ShotState.WAITING: pb.SHOT_STATE_WAITING,
    ShotState.RUNNING: pb.SHOT_STATE_RUNNING,
    ShotState.DONE: pb.SHOT_STATE_DONE,
    ShotState.UNDUBBED: pb.SHOT_STATE_UNDUBBED,
    ShotState.FAILED: pb.SHOT_STATE_FAILED,
    ShotState.CANCELLED: pb.SHOT_STATE_CANCELLED,
}


def batch_message(facts: BatchFacts, progress: Progress | None = None, notes: Sequence[str] = ()) -> pb.Batch:
    """Return the message of a batch.

    Args:
        facts: what the batch is.
        progress: its progress; None: not asked for.
        notes: why something waits, for a person.
    """
    return pb.Batch(
        batch_id=facts.name,
        engine=_ENGINES[facts.engine],
        num_shots=facts.rows,
        created_at=facts.created_at,
        rows_sha256=facts.manifest_sha256,
        progress=None if progress is None else _progress_message(progress),
        notes=notes,
    )


def shot_message(row: int, record: ShotRecord, told: Told) -> pb.Shot:
    """Return the message of a shot.

    Args:
        row: row of the shot, from 0.
        record: what is known of the shot.
        told: removes the server's folders from texts.
    """
    known = common_pb2.FrameReason.items()
    by_name = {name.removeprefix("FRAME_REASON_"): value for name, value in known}
    return pb.Shot(
        row=row,
        shot_id=record.id,
        state=_STATES[record.state],
        attempts=record.attempts,
        worker=record.worker,
        begun_at=record.begun_at,
        ended_at=record.ended_at,
        seconds=record.seconds,
        num_frames=record.frames,
        num_dubbed=record.frames_dubbed,
        reasons=[
            gateway_pb2.ReasonCount(reason=by_name[name.upper()], num_frames=count)
            for name, count in sorted(record.frames_by_reason.items())
        ],
        output_uri=told(record.output),
        output_sha256=record.output_sha256,
        method=record.method,
        r_opening=record.r_opening,
        warnings=map(told, record.warnings),
        look=map(told, record.look),
        error=told(record.error),
        motion=pb.DubMotion(**record.motion.model_dump()) if record.motion is not None else None,
    )


def selected(records: Sequence[ShotRecord], states: Sequence[int], *, to_look_at: bool, after: int) -> Iterator[int]:
    """Yield the rows of the shots that a list has.

    Args:
        records: records of all shots in the order of the rows.
        states: numbers of ShotState; empty: all.
        to_look_at: only shots that a person should look at.
        after: row behind which the list begins; -1: the first.
    """
    for row in range(after + 1, len(records)):
        record = records[row]
        if (not states or _STATES[record.state] in states) and (record.look or not to_look_at):
            yield row


def row_from(page_token: str) -> int:
    """Return the row that the page before ended with; -1 for the first page.

    Raises:
        InvalidRequest: this gateway gave no such token.
    """
    if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 10):
        raise InvalidRequest("page_token: give the next_page_token of an earlier answer", field="page_token")
    return int(page_token) if page_token else -1


def told_shot(shot: Shot, told: Told) -> Shot:
    """Return a shot as callers may see it: files have the names that callers use."""
    files = {field: told(place) for field in ("footage", "speech", "consent", "output") if (place := getattr(shot, field))}
    return shot.model_copy(update=files)


def told_record(record: ShotRecord, told: Told) -> ShotRecord:
    """Return a record as callers may see it."""
    return record.model_copy(
        update={
            "output": told(record.output),
            "error": told(record.error),
            "warnings": tuple(map(told, record.warnings)),
            "look": tuple(map(told, record.look)),
        }
    )


def _progress_message(progress: Progress) -> pb.BatchProgress:
    return pb.BatchProgress(
        num_waiting=progress.waiting,
        num_running=progress.running,
        num_done=progress.done,
        num_undubbed=progress.undubbed,
        num_failed=progress.failed,
        num_cancelled=progress.cancelled,
        num_to_look_at=progress.look,
        num_frames=progress.frames,
        frames_per_second=progress.frames_per_second,
        seconds_left=progress.seconds_left,
    )
