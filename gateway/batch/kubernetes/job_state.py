"""What the Jobs of a batch say about its rows, and what the records of the rows are with that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gateway.batch.failures import Failure
from gateway.batch.kubernetes.job_spec import MANIFEST_ANNOTATION, ROUND_LABEL, ROWS_ANNOTATION, SHARD_LABEL
from gateway.batch.kubernetes.pod_state import PodEnd
from gateway.batch.kubernetes.settings import Object
from gateway.batch.row_ranges import parse_rows
from gateway.batch.transitions import cancelled, failed
from gateway.batch.types import ENDED, ShotRecord
from services.common.errors import ClusterRefused


@dataclass(frozen=True, slots=True)
class JobState:
    """State of one Job of a batch.

    Attributes:
        name: name of the Job.
        key: round and shard.
        manifest_sha256: digest of the rows of the batch. Another digest: the Job is of another batch of the same name.
        rows: rows of the manifest by index.
        completed: rows whose pod ended with exit code 0.
        failed: rows that the cluster does not try again.
        active: pods that run or start.
        finished: whether the Job has ended, for better or worse.
        error: why the Job as a whole failed; empty: it did not.
        suspended: whether the Job waits for its queue or for a person.
        deleting: whether the Job is being removed.
    """

    name: str
    key: tuple[int, int]
    manifest_sha256: str
    rows: tuple[int, ...]
    completed: frozenset[int]
    failed: frozenset[int]
    active: int
    finished: bool
    error: str
    suspended: bool
    deleting: bool

    @property
    def live(self) -> bool:
        """Whether the Job may still start pods."""
        return not (self.finished or self.deleting)

    def open_rows(self) -> frozenset[int]:
        """Return the rows that the Job still works on."""
        return frozenset(self.rows) - self.completed - self.failed if self.live else frozenset()


def job_state(job: Object) -> JobState:
    """Return the state of a Job of a batch from its JSON (batch/v1)."""
    metadata, status = job["metadata"], job.get("status") or {}
    rows = parse_rows(metadata["annotations"][ROWS_ANNOTATION])
    ends = [item for item in status.get("conditions") or () if item["type"] in ("Complete", "Failed") and item["status"] == "True"]
    # A Job whose rows failed one by one has ended as it should: its other rows are completed.
    faults = [
        item
        for item in ends
        if item["type"] == "Failed" and item.get("reason") not in ("FailedIndexes", "MaxFailedIndexesExceeded")
    ]
    return JobState(
        name=metadata["name"],
        key=(int(metadata["labels"][ROUND_LABEL]), int(metadata["labels"][SHARD_LABEL])),
        manifest_sha256=str(metadata["annotations"].get(MANIFEST_ANNOTATION, "")),
        rows=rows,
        completed=_rows(rows, status.get("completedIndexes")),
        failed=_rows(rows, status.get("failedIndexes")),
        active=int(status.get("active") or 0),
        finished=bool(ends),
        error=f"{faults[0].get('reason', '')}: {faults[0].get('message', '')}" if faults else "",
        suspended=bool(job["spec"].get("suspend")),
        deleting="deletionTimestamp" in metadata,
    )


def _rows(rows: tuple[int, ...], indexes: str | None) -> frozenset[int]:
    return frozenset(rows[index] for index in parse_rows(indexes or "") if index < len(rows))


def merged(
    records: Sequence[ShotRecord],
    jobs: Mapping[tuple[int, int], JobState],
    newest: Mapping[int, tuple[int, int]],
    ends: Mapping[tuple[str, int], PodEnd],
    marked: Collection[str],
    now: str,
) -> list[ShotRecord]:
    """Return the records with what the Jobs know and the workers could not write.

    The record of a shot that has ended is the truth. For other shots, the newest Job with the row decides: if the cluster gave the
    row up, the shot has failed; if nothing works on a row that a person cancelled, the shot is cancelled.

    Args:
        records: records of the store, in row order.
        jobs: Jobs that the cluster has, by round and shard.
        newest: round and shard of the newest Job of each row.
        ends: how pods ended, by name of the Job and row.
        marked: ids of the shots that are marked as cancelled.
        now: the present time, RFC 3339.
    """
    found: list[ShotRecord] = []
    for row, record in enumerate(records):
        job = jobs.get(newest[row]) if row in newest else None
        if record.state in ENDED:
            found.append(record)
        elif job is not None and (row in job.failed or (job.error and row not in job.completed)):
            end = ends.get((job.name, row)) or PodEnd(job.error or "its pod failed too often")
            failure = Failure(f"the cluster gave the shot up: {end.reason}", ClusterRefused.exit_code)
            found.append(failed(record, failure, 0.0, now))
        elif record.id in marked and (job is None or row not in job.open_rows()):
            found.append(cancelled(record, now))
        else:
            found.append(record)
    return found
