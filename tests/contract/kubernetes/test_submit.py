"""Batches that are sent to a cluster over HTTP: once, twice, in part, and anew."""

from typing import Any

import pytest

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.batch.changes import retry_in_cluster
from gateway.batch.kubernetes.cluster import Cluster
from gateway.batch.kubernetes.engine import KubernetesEngine, Submitted, open_engine_of
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from services.common.errors import BatchNotFoundError, ClusterRefusedError, InvalidRequestError
from tests.contract.kubernetes.conftest import NAME, config_map, shots
from tests.contract.kubernetes.job_api import NAMESPACE, JobApi


def args_of(api: JobApi, name: str) -> list[str]:
    (container,) = api.job(name)["spec"]["template"]["spec"]["containers"]
    return list(container["args"])


def test_one_job_one_index_per_row(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """A batch becomes one job with one index a row, and has its job once if it is sent twice."""
    assert engine.submit(store, batch, workers=2) == Submitted(("dubstage-night-1-0-0",), 5)
    (job,) = api.jobs()
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (5, 2)
    assert args_of(api, "dubstage-night-1-0-0") == ["batch", "run", NAME, "--index", "$(JOB_COMPLETION_INDEX)", "--rows", "0-4"]
    assert store.facts(batch).details["kubernetes"]["namespace"] == NAMESPACE
    assert engine.submit(store, batch) == Submitted((), 0)
    assert len(api.jobs()) == 1


def test_concurrent_sends_do_not_interfere(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """Two clients that send a batch at the same time do not disturb each other."""
    engine.submit(store, batch)
    # The other one has read the batch before the first one stored its plan, and the list before the first one's Job.
    store.set_details(batch, {})
    api.job("dubstage-night-1-0-0")["metadata"]["labels"].pop("dubstage.io/batch")
    assert engine.submit(store, batch).jobs == ("dubstage-night-1-0-0",)
    assert len(api.jobs()) == 1


def test_foreign_job_left_alone(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """A job of another batch under the name is left alone."""
    engine.submit(store, batch)
    store.set_details(batch, {})
    metadata = api.job("dubstage-night-1-0-0")["metadata"]
    metadata["annotations"]["dubstage.io/manifest-sha256"] = "another"
    metadata["labels"].pop("dubstage.io/batch")
    with pytest.raises(ClusterRefusedError, match="kubectl -n dubbing delete job dubstage-night-1-0-0"):
        engine.submit(store, batch)


def test_interrupted_submission_resumes(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """A submission that was cut goes on with the rows that are left."""
    api.refused["create", "jobs"] = (500, "etcd has no leader")
    with pytest.raises(Exception, match=r"etcd has no leader \(0 of 1 Jobs were created; submit the batch again to continue\)"):
        engine.submit(store, batch)
    api.refused.clear()
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.DONE))
    assert engine.submit(store, batch) == Submitted(("dubstage-night-1-1-0",), 4)
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "0,2-4"


def test_large_batch_becomes_several_jobs(api, engine, store, monkeypatch) -> None:
    monkeypatch.setattr("gateway.batch.kubernetes.jobs.MOST_COMPLETIONS", 100)
    store.create(manifest_of("large", shots(250)), "kubernetes")
    assert engine.submit(store, "large", workers=7).jobs == tuple(f"dubstage-large-0-{shard}" for shard in range(3))
    assert [args_of(api, job["metadata"]["name"])[-1] for job in api.jobs()] == ["0-99", "100-199", "200-249"]
    assert [job["spec"]["parallelism"] for job in api.jobs()] == [3, 2, 2]


def test_failed_row_gets_new_job(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00003", state=ShotState.FAILED, attempts=1, exit_code=10, error="no face"))
    api.set_status("dubstage-night-1-0-0", completedIndexes="0-1", failedIndexes="3", active=2)
    assert engine.retry(store, batch, ["sh00003"]) == Submitted(("dubstage-night-1-1-0",), 1)
    assert args_of(api, "dubstage-night-1-1-0")[3:] == ["--index", "$(JOB_COMPLETION_INDEX)", "--rows", "3"]
    assert store.record(batch, "sh00003") == ShotRecord(id="sh00003")
    # The first Job still says that the index failed, and the new Job counts.
    assert engine.snapshot(store, batch).left[3].state is ShotState.WAITING


def test_retry_takes_failed_and_cancelled(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    store.cancel(batch, ["sh00001"])
    store.put(batch, ShotRecord(id="sh00004", state=ShotState.FAILED))
    api.finish("dubstage-night-1-0-0", completed="0-3", failed="4")
    assert engine.retry(store, batch).rows == 2
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "1,4"
    assert not store.is_cancelled(batch, "sh00001")


def test_named_done_shot_runs_again(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00002", state=ShotState.DONE))
    api.set_status("dubstage-night-1-0-0", completedIndexes="2", active=2)
    assert engine.retry(store, batch, ["sh00002"]).rows == 1
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "2"


def test_retry_with_other_options(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """The pod of the new Job finds the options of the retry in the store."""
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00002", state=ShotState.DONE))
    api.set_status("dubstage-night-1-0-0", completedIndexes="2", active=2)
    assert retry_in_cluster(store, batch, ["sh00002"], ShotOptions(seed=4)) == Submitted(("dubstage-night-1-1-0",), 1)
    assert store.shot(batch, 2).dub.seed == 4
    assert store.record(batch, "sh00002") == ShotRecord(id="sh00002")


@pytest.mark.parametrize(
    ("shot", "kind", "message"),
    [
        ("sh00000", InvalidRequestError, "is running"),
        ("sh00001", InvalidRequestError, "is waiting"),
        ("sh99999", BatchNotFoundError, "no shot"),
    ],
)
def test_running_shot_not_restarted(api, engine, store, batch, shot, kind, message) -> None:
    """A shot that has not ended is not begun anew."""
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00000", state=ShotState.RUNNING))
    with pytest.raises(kind, match=message):
        engine.retry(store, batch, [shot])
    assert len(api.jobs()) == 1


def test_cancelled_rows_job_goes_on(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """Cancelled rows are marked and the job goes on; a row that the job has not begun may wait for the job again."""
    engine.submit(store, batch)
    assert engine.cancel(store, batch, ["sh00002"]) == 1
    assert len(api.jobs()) == 1
    assert engine.snapshot(store, batch).left.keys() == {0, 1, 3, 4}
    engine.cancel(store, batch, ["sh00004"])
    assert engine.retry(store, batch, ["sh00004"]) == Submitted((), 0)
    assert store.record(batch, "sh00004").state is ShotState.WAITING
    assert len(api.jobs()) == 1


def test_cancelled_batch_removes_jobs(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00000", state=ShotState.DONE))
    # Its worker was killed in the middle.
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.RUNNING, attempts=1))
    assert engine.cancel(store, batch) == 4
    assert api.jobs() == []
    assert api.propagation == ["Foreground"]
    assert engine.snapshot(store, batch).left == {}
    assert [record.state for record in store.records(batch)] == [ShotState.DONE] + 4 * [ShotState.CANCELLED]
    assert store.record(batch, "sh00001").state is ShotState.CANCELLED


def test_later_commands_find_the_namespace_of_the_batch(api, engine, store, batch) -> None:
    with pytest.raises(InvalidRequestError, match="has not been sent to a cluster"):
        open_engine_of(store.facts(batch))
    engine.submit(store, batch)
    assert open_engine_of(store.facts(batch)).cluster.namespace == NAMESPACE


def test_local_database_refused(api, engine, store, batch, monkeypatch) -> None:
    """Pods could not read the file of this machine, and need the URL of the database."""
    api.put("configmaps", config_map(env=[]))
    with pytest.raises(InvalidRequestError, match=r"have no database: set gateway\.database of the chart"):
        engine.submit(store, batch)
    monkeypatch.setattr(BatchStore, "is_shared", False)
    with pytest.raises(InvalidRequestError, match="set DUBSTAGE_DATABASE_URL here to the PostgreSQL"):
        engine.submit(store, batch)
    assert not api.jobs()


def test_unknown_profile_and_settings_named(engine: KubernetesEngine, store: BatchStore, batch: str, api: JobApi) -> None:
    """A profile that the cluster lacks is refused with those that exist, and settings of another version are named."""
    with pytest.raises(InvalidRequestError, match=r"'tpu' is not among the profiles of this cluster \(cpu, gpu\)"):
        engine.submit(store, batch, profile="tpu")
    assert store.facts(batch).details == {}
    api.put("configmaps", config_map(colour="blue"))
    with pytest.raises(InvalidRequestError, match=r"dubstage-batch, settings.json: colour: Extra inputs"):
        engine.submit(store, batch)


def removed_and_made_anew(api: JobApi, engine: KubernetesEngine, store: BatchStore, rows: int) -> None:
    """Remove the batch whose Job ends just now, and make a batch of the same name."""
    engine.submit(store, NAME)
    job = api.job(f"dubstage-{NAME}-0-0")
    job["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    api.put("jobs", job)
    store.remove(NAME)
    store.create(manifest_of(NAME, shots(rows)), "kubernetes")


@pytest.mark.parametrize("rows", [5, 4])
def test_name_free_while_jobs_end(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str, rows: int) -> None:
    """A name is free while the jobs of a removed batch still end."""
    removed_and_made_anew(api, engine, store, rows)
    assert engine.submit(store, batch) == Submitted((f"dubstage-{NAME}-1-0",), rows)
    assert args_of(api, f"dubstage-{NAME}-1-0")[-1] == f"0-{rows - 1}"
    assert engine.submit(store, batch) == Submitted((), 0)


def test_jobs_of_namesake_batch_ignored(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """Jobs of another batch of the name say nothing about the shots."""
    removed_and_made_anew(api, engine, store, rows=4)
    del api.job(f"dubstage-{NAME}-0-0")["metadata"]["deletionTimestamp"]
    with pytest.raises(ClusterRefusedError, match=f"Job dubstage-{NAME}-0-0 of another batch"):
        engine.submit(store, batch)
    api.set_status(f"dubstage-{NAME}-0-0", failedIndexes="0-4", active=0)
    assert {record.state for record in engine.snapshot(store, batch).left.values()} == {ShotState.WAITING}
    engine.cancel(store, batch)
    assert [job["metadata"]["name"] for job in api.jobs()] == [f"dubstage-{NAME}-0-0"]


def test_two_retries_at_once_each_get_a_job(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    for shot in ("sh00001", "sh00003"):
        store.put(batch, ShotRecord(id=shot, state=ShotState.FAILED))
    api.finish(f"dubstage-{NAME}-0-0", completed="0,2,4", failed="1,3")
    before = store.facts(batch)
    assert engine.retry(store, batch, ["sh00001"]).jobs == (f"dubstage-{NAME}-1-0",)
    # The second has read the batch before the first stored its plan, and the list before the Job of the first.
    store.set_details(batch, before.details)
    label = api.job(f"dubstage-{NAME}-1-0")["metadata"]["labels"].pop("dubstage.io/batch")
    assert engine.retry(store, batch, ["sh00003"]).jobs == (f"dubstage-{NAME}-2-0",)
    assert args_of(api, f"dubstage-{NAME}-2-0")[-1] == "3"

    api.job(f"dubstage-{NAME}-1-0")["metadata"]["labels"]["dubstage.io/batch"] = label
    store.reset(batch, ["sh00001"])
    left = engine.snapshot(store, batch).left
    assert (left[1].state, left[3].state) == (ShotState.WAITING, ShotState.WAITING)


def test_status_keeps_concurrent_retry(api, engine, store, batch, monkeypatch) -> None:
    """A look at a batch does not undo a retry that comes in between."""
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.FAILED))
    api.finish(f"dubstage-{NAME}-0-0", completed="0,2-4", failed="1")
    read = store.left

    def left_after_a_retry(name: str) -> dict[int, ShotRecord]:
        monkeypatch.undo()
        engine.retry(store, batch)
        return read(name)

    monkeypatch.setattr(store, "left", left_after_a_retry)
    assert engine.snapshot(store, batch).left[1].state is ShotState.WAITING


def test_record_written_during_query_stays(api, engine, store, batch, monkeypatch) -> None:
    """A record that is written while the cluster is asked stays."""
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.RUNNING, attempts=1))
    api.finish(f"dubstage-{NAME}-0-0", completed="0,2-4", failed="1")
    ask = type(engine.cluster).pods

    def pods_after_a_retry(cluster: Cluster, *asked: Any) -> list[Any]:
        monkeypatch.undo()
        engine.snapshot(store, batch)
        engine.retry(store, batch, ["sh00001"])
        return ask(cluster, *asked)

    monkeypatch.setattr(type(engine.cluster), "pods", pods_after_a_retry)
    engine.snapshot(store, batch)
    assert store.record(batch, "sh00001").state is ShotState.WAITING
