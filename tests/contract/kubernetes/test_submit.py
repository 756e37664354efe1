"""Batches that are sent to a cluster over HTTP: once, twice, in part, and anew."""

from __future__ import annotations

import pytest

from gateway.batch.kubernetes.engine import KubernetesEngine, Submitted, open_engine_of
from gateway.batch.manifest import manifest_of
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from services.common.errors import BatchNotFound, ClusterRefused, DubstageError, InvalidRequest
from tests.contract.kubernetes.conftest import NAME, config_map, shots
from tests.contract.kubernetes.job_api import NAMESPACE, JobApi


def args_of(api: JobApi, name: str) -> list[str]:
    (container,) = api.job(name)["spec"]["template"]["spec"]["containers"]
    return list(container["args"])


def test_a_batch_becomes_one_job_with_one_index_a_row(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    assert engine.submit(store, batch, workers=2) == Submitted(("dubstage-night-1-0-0",), 5)
    (job,) = api.jobs()
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (5, 2)
    assert args_of(api, "dubstage-night-1-0-0") == ["batch", "run", NAME, "--index", "$(JOB_COMPLETION_INDEX)", "--rows", "0-4"]
    assert store.facts(batch).details["kubernetes"]["namespace"] == NAMESPACE


def test_a_batch_that_is_sent_twice_has_its_jobs_once(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    engine.submit(store, batch)
    assert engine.submit(store, batch) == Submitted((), 0)
    assert len(api.jobs()) == 1


def test_two_that_send_a_batch_at_once_do_not_disturb_each_other(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    # The other one has read the batch before the first one stored its plan, and the list before the first one's Job.
    store.set_details(batch, {})
    api.job("dubstage-night-1-0-0")["metadata"]["labels"].pop("dubstage.io/batch")
    assert engine.submit(store, batch).jobs == ("dubstage-night-1-0-0",)
    assert len(api.jobs()) == 1


def test_a_job_of_another_batch_under_the_name_is_left_alone(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    store.set_details(batch, {})
    metadata = api.job("dubstage-night-1-0-0")["metadata"]
    metadata["annotations"]["dubstage.io/manifest-sha256"] = "another"
    metadata["labels"].pop("dubstage.io/batch")
    with pytest.raises(ClusterRefused, match="kubectl --namespace dubbing delete job dubstage-night-1-0-0"):
        engine.submit(store, batch)


def test_a_submission_that_was_cut_goes_on_with_the_rows_that_are_left(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    api.refused["create", "jobs"] = (500, "etcd has no leader")
    with pytest.raises(Exception, match=r"etcd has no leader \(0 of 1 Jobs were created; submit the batch again to continue\)"):
        engine.submit(store, batch)
    api.refused.clear()
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.DONE))
    assert engine.submit(store, batch) == Submitted(("dubstage-night-1-1-0",), 4)
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "0,2-4"


def test_a_batch_of_more_rows_than_a_job_may_have_is_several_jobs(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batch.kubernetes.job_plan.MOST_COMPLETIONS", 100)
    store.create(manifest_of("large", shots(250)), "kubernetes")
    assert engine.submit(store, "large", workers=7).jobs == tuple(f"dubstage-large-0-{shard}" for shard in range(3))
    assert [args_of(api, job["metadata"]["name"])[-1] for job in api.jobs()] == ["0-99", "100-199", "200-249"]
    assert [job["spec"]["parallelism"] for job in api.jobs()] == [3, 2, 2]


def test_a_failed_row_gets_a_job_of_its_own_and_begins_anew(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00003", state=ShotState.FAILED, attempts=1, exit_code=10, error="no face"))
    api.set_status("dubstage-night-1-0-0", completedIndexes="0-1", failedIndexes="3", active=2)
    assert engine.retry(store, batch, ["sh00003"]) == Submitted(("dubstage-night-1-1-0",), 1)
    assert args_of(api, "dubstage-night-1-1-0")[3:] == ["--index", "$(JOB_COMPLETION_INDEX)", "--rows", "3"]
    assert store.record(batch, "sh00003") == ShotRecord(id="sh00003")
    # The first Job still says that the index failed, and the new Job counts.
    assert engine.snapshot(store, batch).records[3].state is ShotState.WAITING


def test_all_that_failed_or_was_cancelled_is_tried_again(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    store.cancel(batch, ["sh00001"])
    store.put(batch, ShotRecord(id="sh00004", state=ShotState.FAILED))
    api.finish("dubstage-night-1-0-0", completed="0-3", failed="4")
    assert engine.retry(store, batch).rows == 2
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "1,4"
    assert not store.is_cancelled(batch, "sh00001")


def test_a_shot_that_is_done_is_done_again_if_it_is_named(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00002", state=ShotState.DONE))
    api.set_status("dubstage-night-1-0-0", completedIndexes="2", active=2)
    assert engine.retry(store, batch, ["sh00002"]).rows == 1
    assert args_of(api, "dubstage-night-1-1-0")[-1] == "2"


def test_a_cancelled_row_that_its_job_has_not_begun_waits_for_that_job_again(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    engine.cancel(store, batch, ["sh00004"])
    assert engine.retry(store, batch, ["sh00004"]) == Submitted((), 0)
    assert store.record(batch, "sh00004").state is ShotState.WAITING
    assert len(api.jobs()) == 1


@pytest.mark.parametrize(
    ("shot", "kind", "message"),
    [
        ("sh00000", InvalidRequest, "is running"),
        ("sh00001", InvalidRequest, "is waiting"),
        ("sh99999", BatchNotFound, "no shot"),
    ],
)
def test_a_shot_that_has_not_ended_is_not_begun_anew(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str, shot: str, kind: type[DubstageError], message: str
) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00000", state=ShotState.RUNNING))
    with pytest.raises(kind, match=message):
        engine.retry(store, batch, [shot])
    assert len(api.jobs()) == 1


def test_cancelled_rows_are_marked_and_the_job_goes_on(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    assert engine.cancel(store, batch, ["sh00002"]) == 1
    assert len(api.jobs()) == 1
    assert [record.state for record in engine.snapshot(store, batch).records].count(ShotState.CANCELLED) == 1


def test_a_cancelled_batch_has_no_jobs_and_no_open_rows(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    engine.submit(store, batch)
    store.put(batch, ShotRecord(id="sh00000", state=ShotState.DONE))
    # Its worker was killed in the middle.
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.RUNNING, attempts=1))
    assert engine.cancel(store, batch) == 4
    assert api.jobs() == []
    assert api.propagation == ["Foreground"]
    assert [record.state for record in engine.snapshot(store, batch).records] == [ShotState.DONE] + 4 * [ShotState.CANCELLED]
    assert store.record(batch, "sh00001").state is ShotState.CANCELLED


def test_later_commands_find_the_namespace_of_the_batch(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    with pytest.raises(InvalidRequest, match="has not been sent to a cluster"):
        open_engine_of(store.facts(batch))
    engine.submit(store, batch)
    assert open_engine_of(store.facts(batch)).cluster.namespace == NAMESPACE


def test_pods_could_not_read_the_store_of_this_machine(
    api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    api.put("configmaps", config_map(store, batches_url="s3://films/batches"))
    with pytest.raises(InvalidRequest, match="set DUBSTAGE_BATCHES_URL=s3://films/batches here"):
        engine.submit(store, batch)
    assert not api.jobs()


def test_a_profile_that_the_cluster_lacks_is_refused_with_those_that_exist(
    engine: KubernetesEngine, store: BatchStore, batch: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"'tpu' is not among the profiles of this cluster \(cpu, gpu\)"):
        engine.submit(store, batch, profile="tpu")
    assert store.facts(batch).details == {}


def test_settings_of_another_version_are_named(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    api.put("configmaps", config_map(store, colour="blue"))
    with pytest.raises(InvalidRequest, match=r"dubstage-batch, settings.json: colour: Extra inputs"):
        engine.submit(store, batch)
