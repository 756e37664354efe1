"""What the status of Jobs says about rows, merged with the records of the workers."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.batch.kubernetes.job_state import JobState, job_state, merged
from gateway.batch.kubernetes.pod_state import PodEnd
from gateway.batch.types import ShotRecord, ShotState

NOW = "2026-01-02T03:04:05Z"


def job(rows: str = "10-14", turn: int = 0, **status: Any) -> JobState:
    labels = {"dubstage.io/round": str(turn), "dubstage.io/shard": "0"}
    metadata = {"name": f"job-{turn}", "labels": labels, "annotations": {"dubstage.io/rows": rows}}
    return job_state({"metadata": metadata, "spec": {}, "status": status})


def ended(kind: str, reason: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True", "reason": reason, "message": "words"}]


def test_indexes_are_rows_of_the_job() -> None:
    found = job("3,7,20-22", completedIndexes="0,2-3", failedIndexes="1", active=1)
    assert found.completed == {3, 20, 21}
    assert found.failed == {7}
    assert found.open_rows() == {22}


def test_a_job_without_a_status_has_not_begun() -> None:
    found = job()
    assert found.live
    assert found.open_rows() == set(range(10, 15))


@pytest.mark.parametrize(
    ("conditions", "finished", "error"),
    [
        ([], False, ""),
        ([{"type": "Suspended", "status": "True"}], False, ""),
        ([{"type": "Failed", "status": "False"}], False, ""),
        (ended("Complete", "CompletionsReached"), True, ""),
        (ended("Failed", "FailedIndexes"), True, ""),
        (ended("Failed", "PodFailurePolicy"), True, "PodFailurePolicy: words"),
    ],
)
def test_a_job_ends_by_its_conditions(conditions: list[dict[str, str]], finished: bool, error: str) -> None:
    found = job(conditions=conditions)
    assert (found.finished, found.error) == (finished, error)
    assert found.live is not finished


def states(
    records: list[ShotRecord], *jobs: JobState, newest: dict[int, tuple[int, int]], marked: tuple[str, ...] = ()
) -> list[str]:
    found = merged(records, {item.key: item for item in jobs}, newest, {}, marked, NOW)
    return [record.state.value for record in found]


def record(shot: str, state: ShotState = ShotState.WAITING) -> ShotRecord:
    return ShotRecord(id=shot, state=state)


def test_the_record_of_a_shot_that_ended_is_the_truth() -> None:
    records = [record("a", ShotState.DONE), record("b", ShotState.CANCELLED)]
    newest = {0: (0, 0), 1: (0, 0)}
    assert states(records, job("0-1", failedIndexes="0-1"), newest=newest) == ["done", "cancelled"]


def test_a_row_that_the_cluster_gave_up_has_failed_with_the_reason() -> None:
    records = [record("a", ShotState.RUNNING), record("b")]
    found = merged(
        records, {(0, 0): job("0-1", failedIndexes="0")}, {0: (0, 0), 1: (0, 0)}, {("job-0", 0): PodEnd("killed")}, (), NOW
    )
    assert found[0].state is ShotState.FAILED
    assert (found[0].error, found[0].exit_code, found[0].ended_at) == ("the cluster gave the shot up: killed", 11, NOW)
    assert found[1] is records[1]


def test_a_job_that_failed_as_a_whole_takes_its_open_rows_along() -> None:
    failed = job("0-1", completedIndexes="0", conditions=ended("Failed", "DeadlineExceeded"))
    assert states([record("a"), record("b")], failed, newest={0: (0, 0), 1: (0, 0)}) == ["waiting", "failed"]


def test_only_the_newest_job_of_a_row_counts() -> None:
    old = job("0-1", failedIndexes="0-1")
    assert states([record("a"), record("b")], old, job("1", turn=1), newest={0: (0, 0), 1: (1, 0)}) == ["failed", "waiting"]
    # The new Job is planned, and not created yet.
    assert states([record("a"), record("b")], old, newest={0: (0, 0), 1: (1, 0)}) == ["failed", "waiting"]


def test_a_cancelled_row_ends_when_nothing_works_on_it() -> None:
    records = [record("a", ShotState.RUNNING)]
    newest = {0: (0, 0)}
    assert states(records, job("0"), newest=newest, marked=("a",)) == ["running"]
    assert states(records, newest=newest, marked=("a",)) == ["cancelled"]
