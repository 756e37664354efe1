"""Work in several processes."""

import multiprocessing
from functools import partial

import pytest

from research.trainset.workers import WorkerDiedError, in_processes
from services.common.errors import StorageFullError
from tests.integration.research.trainset.made_work import worker


@pytest.mark.parametrize("processes", [0, 2])
def test_each_task_is_done_once(processes: int) -> None:
    assert sorted(in_processes(range(9), processes, partial(worker, 10))) == [(number, 10 * number) for number in range(9)]
    assert not multiprocessing.active_children()


def test_the_death_of_a_process_costs_one_task() -> None:
    results = dict(in_processes([1, -1, 2, 3], 1, partial(worker, 10)))
    assert results == {1: 10, -1: WorkerDiedError(-9), 2: 20, 3: 30}
    assert str(results[-1]).startswith("the process that read it ended by signal 9")


def test_an_error_ends_all_work() -> None:
    with pytest.raises(StorageFullError, match="no space"):
        list(in_processes([1, 100, 2], 1, partial(worker, 10)))
    assert not multiprocessing.active_children()


def test_without_tasks_there_is_no_process() -> None:
    assert list(in_processes([], 2, partial(worker, 10))) == []
