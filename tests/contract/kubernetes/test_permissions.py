"""The Role of the chart is what the engine needs: with it everything works, and without any of its verbs something does not."""

import pytest

from gateway.batch.kubernetes.engine import KubernetesEngine
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from services.common.errors import ClusterRefusedError
from tests.charts.rendering import render
from tests.contract.kubernetes.job_api import JobApi

VERBS = ("create", "get", "list", "watch", "delete")
RESOURCES = ("jobs", "pods", "configmaps")
JOB = "dubstage-night-1-0-0"


def allowed() -> set[tuple[str, str]]:
    """Verb and resource of every permission of the chart's Role."""
    (role,) = render("batch").of("Role")
    return {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def everything(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """All that a person does with a batch."""
    engine.submit(store, batch)
    api.job(JOB)["metadata"]["labels"].pop("dubstage.io/batch")
    store.set_details(batch, {})
    engine.submit(store, batch)
    api.job(JOB)["metadata"]["labels"]["dubstage.io/batch"] = batch
    api.set_status(JOB, failedIndexes="0", active=2)
    engine.snapshot(store, batch)
    assert store.record(batch, "sh00000").state is ShotState.FAILED
    engine.retry(store, batch)
    watch = engine.watch(store, batch)
    next(watch)
    store.put(batch, ShotRecord(id="sh00001", state=ShotState.DONE))
    api.set_status(JOB, completedIndexes="1")
    next(watch)
    engine.cancel(store, batch)


def test_the_role_of_the_chart_is_enough(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    role = allowed()
    for verb in VERBS:
        for resource in RESOURCES:
            if (verb, resource) not in role:
                api.refused[verb, resource] = (403, "forbidden")
    everything(api, engine, store, batch)


@pytest.mark.parametrize("permission", sorted(allowed()))
def test_role_has_no_excess_permission(api, engine, store, batch, permission) -> None:
    api.refused[permission] = (403, "forbidden")
    with pytest.raises(ClusterRefusedError, match=rf"resources: \[{permission[1]}\], verbs: \[{permission[0]}\]"):
        everything(api, engine, store, batch)
