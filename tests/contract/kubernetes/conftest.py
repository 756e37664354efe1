"""A cluster, a store of batches, and batches of three rows and more."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.batch.kubernetes.cluster import Cluster, Timing, connect
from gateway.batch.kubernetes.engine import KubernetesEngine
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotSpec, manifest_of
from tests.batches import open_store
from tests.contract.kubernetes.job_api import NAMESPACE, JobApi, serve
from tests.kubernetes_objects import schemas_read_once
from tests.unit.batch.rows import shot_of_row

NAME = "night-1"
QUICK = Timing(watch_s=1, first_s=0.02, longest_s=0.1, patience_s=60)


@pytest.fixture(scope="session", autouse=True)
def _schemas_read_once() -> Iterator[None]:
    with schemas_read_once():
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchStore:
    """A store in the place of a PostgreSQL that pods reach."""
    monkeypatch.setattr(BatchStore, "is_shared", True)
    return open_store(tmp_path / "data")


def settings_json(**changed: Any) -> str:
    """settings.json of the ConfigMap."""
    document = {
        "image": "dubstage/suite:0.1.0",
        "service_account": "dubstage-batch-worker",
        "env": [{"name": "DUBSTAGE_DATABASE_URL", "value": "postgresql://db"}],
        "profiles": {"cpu": {"resources": {"limits": {"cpu": "4", "memory": "8Gi"}}}, "gpu": {}},
        **changed,
    }
    return json.dumps(document)


def config_map(**changed: Any) -> dict[str, Any]:
    """The ConfigMap that the chart writes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "dubstage-batch", "namespace": NAMESPACE},
        "data": {"settings.json": settings_json(**changed)},
    }


def shots(number: int) -> list[ShotSpec]:
    """Rows whose files pods can open."""
    return [
        shot_of_row(id=f"sh{row:05}", footage=f"s3://plates/{row}.mov", speech=f"s3://de/{row}.wav", output=f"s3://out/{row}.mov")
        for row in range(number)
    ]


def kubeconfig(folder: Path, url: str, namespace: str = NAMESPACE) -> Path:
    """A kubeconfig with one context."""
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "studio",
        "contexts": [{"name": "studio", "context": {"cluster": "studio", "user": "me", "namespace": namespace}}],
        "clusters": [{"name": "studio", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobApi]:
    """The API with the ConfigMap, and a kubeconfig that leads to it."""
    found = JobApi()
    found.put("configmaps", config_map())
    server = serve(found)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, f"http://127.0.0.1:{server.server_port}")))
    yield found
    found.silent = False
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(api: JobApi) -> Cluster:
    return connect(read_s=60)


@pytest.fixture
def engine(cluster: Cluster) -> KubernetesEngine:
    return KubernetesEngine(cluster, QUICK)


@pytest.fixture
def batch(store: BatchStore) -> str:
    """A batch of five rows."""
    store.create(manifest_of(NAME, shots(5)), "kubernetes")
    return NAME
