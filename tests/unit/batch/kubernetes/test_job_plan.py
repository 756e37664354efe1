"""Which rows go into which Job, and names that Kubernetes takes."""

from __future__ import annotations

import re

import pytest

from gateway.batch.kubernetes.job_plan import MOST_COMPLETIONS, BatchPlan, JobPlan, jobs_of, shards_of


def test_rows_are_cut_into_jobs_of_at_most_ten_thousand() -> None:
    shards = shards_of(range(25_000))
    assert [len(rows) for rows in shards] == [10_000, 10_000, 5_000]
    assert [row for rows in shards for row in rows] == list(range(25_000))
    assert len(shards_of(range(MOST_COMPLETIONS))) == 1


@pytest.mark.parametrize(("rows", "workers", "shares"), [(5, 2, [2]), (5, 50, [5]), (25_000, 7, [3, 2, 2]), (25_000, 2, [1, 1, 1])])
def test_the_jobs_share_the_workers(rows: int, workers: int, shares: list[int]) -> None:
    assert [job.parallelism for job in jobs_of("b", "d", 0, shards_of(range(rows)), workers)] == shares


def test_the_longest_name_leaves_room_for_the_index_in_a_host_name() -> None:
    name = JobPlan("b" * 40, "d", 999, 9999, (0,), 1).name
    assert len(f"{name}-{MOST_COMPLETIONS - 1}") <= 63
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)


def test_two_batches_never_share_a_name() -> None:
    assert JobPlan("a-0", "d", 0, 0, (0,), 1).name != JobPlan("a", "d", 0, 0, (0,), 1).name
    assert JobPlan("a-1", "d", 0, 1, (0,), 1).name != JobPlan("a", "d", 1, 0, (0,), 1).name


def test_the_plan_of_a_batch_is_kept_as_json() -> None:
    plan = BatchPlan("dubbing", "studio", "dubstage-batch", "gpu", 3, (((0, 1, 2), (3, 9)), ((1,),)))
    assert BatchPlan.of(plan.details()) == plan
    assert plan.details()["rounds"] == [["0-2", "3,9"], ["1"]]


def test_the_newest_job_of_a_row_is_that_of_the_last_round() -> None:
    plan = BatchPlan("n", "", "c", "cpu", 0, (((0, 1), (2, 3)), ((3,),)))
    assert plan.newest_job() == {0: (0, 0), 1: (0, 0), 2: (0, 1), 3: (1, 0)}
