"""The watch of a batch: over changes, lost connections, expired versions and failed pods, to the end."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.batch.kubernetes.cluster import Cluster, Timing, follow
from gateway.batch.kubernetes.engine import KubernetesEngine, Snapshot
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from services.common.errors import BackendUnavailableError, ClusterRefusedError, OverloadedError
from tests.contract.kubernetes.conftest import QUICK
from tests.contract.kubernetes.job_api import JobApi

JOB = "dubstage-night-1-0-0"
SELECTOR = "dubstage.io/batch=night-1"


class Seen:
    """Events of a watch in a thread of its own."""

    def __init__(self, told: Iterator[Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()
        self._told = told
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._told:
                self._queue.put(item)
        except Exception as error:
            self._queue.put(error)
        self._queue.put(None)

    def until(self, wanted: Any) -> Any:
        """The next thing told for which `wanted` holds."""
        while True:
            item = self._queue.get(timeout=60)
            assert item is not None, "the watch ended"
            if isinstance(item, Exception):
                raise item
            if wanted(item):
                return item

    def end(self) -> list[Any]:
        """Return the events until the watch ends."""
        found = []
        while (item := self._queue.get(timeout=60)) is not None:
            found.append(item)
        return found

    def join(self) -> None:
        """Wait until the watch has ended."""
        self._thread.join(60)
        assert not self._thread.is_alive()


Begin = Callable[[Iterator[Any]], Seen]


@pytest.fixture
def begin(api: JobApi) -> Iterator[Begin]:
    """Begins watches, and ends them with the test: a later server may get the port of this one."""
    begun: list[Seen] = []

    def begin_one(told: Iterator[Any]) -> Seen:
        begun.append(Seen(told))
        return begun[-1]

    yield begin_one
    api.refused = {(verb, "jobs"): (403, "the test is over") for verb in ("list", "watch")}
    api.cut()
    for seen in begun:
        seen.join()


@pytest.fixture
def sent(engine: KubernetesEngine, store: BatchStore, batch: str) -> str:
    engine.submit(store, batch)
    return batch


def completed(jobs: dict[str, Any]) -> str:
    return str(jobs[JOB].get("status", {}).get("completedIndexes", ""))


def test_watch_until_batch_ends(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str, begin: Begin) -> None:
    """A watch tells each change and ends with the batch."""
    seen = begin(engine.watch(store, sent))
    seen.until(lambda snapshot: not snapshot.ended)
    api.wait_for_watches(1)
    for row in range(5):
        store.put(sent, ShotRecord(id=f"sh{row:05}", state=ShotState.DONE))
    api.finish(JOB, completed="0-4")
    last: Snapshot = seen.end()[-1]
    assert last.left == {}
    assert last.ended


def test_watch_survives_failing_call(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str, begin: Begin) -> None:
    api.refused["list", "pods"] = (429, "too many requests")
    api.set_status(JOB, active=2)
    seen = begin(engine.watch(store, sent))
    api.wait_for(lambda: any(path.endswith("/pods") for _, path, _ in api.requests))
    api.refused.clear()
    seen.until(lambda snapshot: not snapshot.ended)
    impatient = KubernetesEngine(engine.cluster, replace(QUICK, patience_s=0.0))
    api.refused["list", "pods"] = (429, "too many requests")
    with pytest.raises(OverloadedError, match="too many requests"):
        list(impatient.watch(store, sent))


def test_a_dropped_connection_goes_on_where_it_was(api: JobApi, cluster: Cluster, sent: str, begin: Begin) -> None:
    seen = begin(follow(cluster, SELECTOR, QUICK))
    api.wait_for_watches(1)
    api.set_status(JOB, completedIndexes="0")
    seen.until(lambda jobs: completed(jobs) == "0")
    version = api.version
    api.cut()
    # While nobody watches.
    api.set_status(JOB, completedIndexes="0-1")
    seen.until(lambda jobs: completed(jobs) == "0-1")
    assert api.count("list") == 2  # one of the submission, one of the watch
    assert str(version) in {query["resourceVersion"] for query in api.queries("watch")}


def test_an_expired_version_is_listed_again(api: JobApi, cluster: Cluster, sent: str, begin: Begin) -> None:
    seen = begin(follow(cluster, SELECTOR, QUICK))
    api.wait_for_watches(1)
    seen.until(lambda jobs: completed(jobs) == "")
    lists = api.count("list")
    api.set_status(JOB, completedIndexes="0-2")
    api.forget()
    api.cut()
    seen.until(lambda jobs: completed(jobs) == "0-2")
    # The change may have come before the cut: then the list comes after the change.
    api.wait_for(lambda: api.count("list") > lists)
    api.set_status(JOB, completedIndexes="0-3")
    seen.until(lambda jobs: completed(jobs) == "0-3")
    assert api.count("list") == lists + 1


@pytest.mark.parametrize("status", [410, 200])
def test_expired_version_restarts_watch(api: JobApi, cluster: Cluster, sent: str, begin: Begin, status: int) -> None:
    """An expired version comes as a status or as an event."""
    if status == 410:
        api.refused["watch", "jobs"] = (410, "too old resource version")
    else:
        api.oldest = 1 << 40
    seen = begin(follow(cluster, SELECTOR, QUICK))
    seen.until(lambda _: api.count("watch") >= 2)
    # Each time the Jobs are listed again, with a pause between.
    assert api.count("list") >= 2
    api.refused.clear()
    api.oldest = 0
    api.set_status(JOB, completedIndexes="0-2")
    seen.until(lambda jobs: completed(jobs) == "0-2")


def test_a_bookmark_moves_the_version_without_a_change(api: JobApi, cluster: Cluster, sent: str, begin: Begin) -> None:
    told = []
    seen = begin(told.append(jobs) or jobs for jobs in follow(cluster, SELECTOR, QUICK))  # type: ignore[func-returns-value]
    api.wait_for_watches(1)
    assert api.queries("watch")[0]["allowWatchBookmarks"] == "true"
    api.bookmark()
    version = str(api.version)
    # No watch that begins without the bookmark has this version.
    api.wait_for(lambda: version in {query["resourceVersion"] for query in api.queries("watch")})
    seen.until(lambda jobs: completed(jobs) == "")
    assert all(completed(jobs) == "" for jobs in told)


def test_a_removed_job_is_no_longer_told(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str, begin: Begin) -> None:
    seen = begin(engine.watch(store, sent))
    api.wait_for_watches(1)
    engine.cancel(store, sent)
    assert seen.end()[-1].jobs == ()
    assert {record.state for record in store.records(sent)} == {ShotState.CANCELLED}


def test_watch_gives_up_on_cluster(api: JobApi, cluster: Cluster, sent: str) -> None:
    """A cluster that stays away ends the watch after some patience."""
    api.refused["watch", "jobs"] = (503, "the server is starting")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    timing = Timing(first_s=0.02, longest_s=0.1, patience_s=0.5)
    told = follow(cluster, SELECTOR, timing, sleep=sleep, clock=lambda: now[0])
    assert completed(next(told)) == ""
    with pytest.raises(BackendUnavailableError, match=r"watch jobs in namespace dubbing \(HTTP 503\): the server is starting"):
        next(told)
    assert api.count("watch") >= 3


def test_pauses_between_tries_double_up_to_a_bound(api: JobApi, cluster: Cluster, sent: str) -> None:
    api.refused["list", "jobs"] = (503, "later")
    pauses: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    with pytest.raises(BackendUnavailableError):
        next(follow(cluster, SELECTOR, Timing(first_s=0.5, longest_s=4, patience_s=16), sleep=sleep, clock=lambda: now[0]))
    assert pauses == [0.5, 1, 2, 4, 4, 4, 4]


def test_a_lost_permission_ends_the_watch_at_once(api: JobApi, cluster: Cluster, sent: str, begin: Begin) -> None:
    api.refused["watch", "jobs"] = (403, 'User "me" cannot watch resource "jobs"')
    with pytest.raises(ClusterRefusedError, match=r"resources: \[jobs\], verbs: \[watch\]"):
        begin(follow(cluster, SELECTOR, QUICK)).until(lambda _: False)
    assert api.count("watch") == 1


def pod(index: int, phase: str, status: dict[str, Any]) -> dict[str, Any]:
    labels = {"dubstage.io/batch": "night-1", "batch.kubernetes.io/job-name": JOB}
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    metadata = {"name": f"{JOB}-{index}-x", "labels": labels, "annotations": annotations}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": {"phase": phase, **status}}


def test_killed_pods_fail_row(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str) -> None:
    """A row whose pods were killed fails with the reason and others go on."""
    store.put(sent, ShotRecord(id="sh00002", state=ShotState.RUNNING, attempts=3, begun_at="2026-01-01T00:00:00Z"))
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    api.put("pods", pod(2, "Failed", {"containerStatuses": [{"name": "worker", "state": killed}]}))
    api.set_status(JOB, failedIndexes="2", completedIndexes="0", active=2)
    snapshot = engine.snapshot(store, sent)
    record = store.record(sent, "sh00002")
    assert record.state is ShotState.FAILED
    assert record.error == "the cluster gave the shot up: exit code 137, OOMKilled; raise the memory limit of the profile"
    assert 2 not in snapshot.left
    assert not snapshot.ended


def test_what_keeps_pods_from_starting_is_said(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "dubstage/suite:0.1.0"'}}
    api.put("pods", pod(0, "Pending", {"containerStatuses": [{"name": "worker", "state": waiting}]}))
    for index in (1, 2):
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
        api.put("pods", pod(index, "Pending", {"conditions": [condition]}))
    api.set_status(JOB, active=3)
    assert engine.snapshot(store, sent).notes == (
        "2 pods wait: Unschedulable: 0/3 nodes: no GPU",
        '1 pod waits: ImagePullBackOff: Back-off pulling image "dubstage/suite:0.1.0"',
    )


def test_removed_job_is_reported(api: JobApi, engine: KubernetesEngine, store: BatchStore, sent: str) -> None:
    """A job that was removed from outside leaves rows that are reported."""
    store.put(sent, ShotRecord(id="sh00000", state=ShotState.DONE))
    del api.objects["jobs", JOB]
    snapshot = engine.snapshot(store, sent)
    assert snapshot.ended
    assert snapshot.notes == ("4 shots have no Job in the cluster: submit the batch again to continue",)
    assert engine.submit(store, sent).rows == 4
