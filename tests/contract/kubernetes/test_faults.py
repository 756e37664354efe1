"""Tests of failures between the command and the cluster, and of the command's messages."""

from pathlib import Path

import pytest

from gateway.batch.kubernetes.cluster import connect
from gateway.batch.kubernetes.engine import KubernetesEngine, open_engine
from gateway.batch.store import BatchStore
from services.common.errors import (
    BackendUnavailableError,
    ClusterRefusedError,
    InvalidRequestError,
    OverloadedError,
    StageDeadlineExceededError,
    UnauthenticatedError,
)
from tests.contract.kubernetes.conftest import QUICK, kubeconfig
from tests.contract.kubernetes.job_api import JobApi


@pytest.mark.parametrize(
    ("verb", "resource", "group", "act"),
    [
        ("get", "configmaps", "", "submit"),
        ("list", "jobs", "batch", "submit"),
        ("create", "jobs", "batch", "submit"),
        ("delete", "jobs", "batch", "cancel"),
    ],
)
def test_missing_permission_is_named(api, engine, store, batch, verb, resource, group, act) -> None:
    """A missing permission is named as the role needs it."""
    if act == "cancel":
        engine.submit(store, batch)
    api.refused[verb, resource] = (403, f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}"')
    with pytest.raises(ClusterRefusedError) as caught:
        getattr(engine, act)(store, batch)
    assert f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{verb}]}}' in caught.value.message
    assert "batch.subjects" in caught.value.message
    assert caught.value.exit_code == 11


@pytest.mark.parametrize(
    ("status", "said", "kind", "message"),
    [
        (401, "Unauthorized", UnauthenticatedError, "log in again, or choose another kubeconfig"),
        (403, "exceeded quota: jobs, requested: 1", ClusterRefusedError, "refuses to create jobs .*exceeded quota"),
        (422, "spec.template: Invalid value", ClusterRefusedError, "correct the values under batch of the chart"),
        (429, "too many requests", OverloadedError, "too many requests"),
        (503, "etcdserver: leader changed", BackendUnavailableError, "HTTP 503.*leader changed"),
    ],
)
def test_each_refusal_says_what_to_do(api, engine, store, batch, status, said, kind, message) -> None:
    api.refused["create", "jobs"] = (status, said)
    with pytest.raises(kind, match=message):
        engine.submit(store, batch)


def test_release_without_batches(api: JobApi, engine: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """A release without batches is told apart from a missing permission."""
    told = r"has no ConfigMap studio-batch: install the chart there with batch\.enabled=true"
    with pytest.raises(InvalidRequestError, match=told):
        engine.submit(store, batch, config_map="studio-batch")
    with pytest.raises(InvalidRequestError, match=r"namespace nowhere of the cluster .* has no ConfigMap"):
        open_engine(namespace="nowhere").submit(store, batch)


def test_unreachable_cluster_shows_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: BatchStore, batch: str) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:9")))
    with pytest.raises(BackendUnavailableError, match=r"http://127.0.0.1:9 cannot be reached .*Connection refused"):
        open_engine().submit(store, batch)


def test_silent_cluster_times_out(api: JobApi, store: BatchStore, batch: str) -> None:
    impatient = KubernetesEngine(connect(read_s=0.5), QUICK)
    api.silent = True
    with pytest.raises(StageDeadlineExceededError, match="did not answer in time"):
        impatient.submit(store, batch)


@pytest.mark.parametrize("text", ["{", "- a", "apiVersion: v1", "words"])
def test_invalid_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A file that is no kubeconfig is reported in one line."""
    (tmp_path / "config").write_text(text, encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(InvalidRequestError, match=r"^no cluster to talk to: .*give context") as caught:
        connect()
    assert "\n" not in caught.value.message


def test_missing_kubeconfig_shows_remedies(api: JobApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that the kubeconfig lacks is named, and without a kubeconfig the ways to a cluster are."""
    with pytest.raises(InvalidRequestError, match="moon"):
        connect(context="moon")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(InvalidRequestError, match="set KUBECONFIG to a kubeconfig, or give context"):
        connect()


def test_pod_uses_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    told = r"no cluster to talk to: .*a gateway of the chart needs gateway\.batchesOnKubernetes"
    with pytest.raises(InvalidRequestError, match=told):
        connect(account=tmp_path)
    for name, text in {"token": "secret", "ca.crt": "-----BEGIN CERTIFICATE-----", "namespace": "studio\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    cluster = connect(account=tmp_path)
    assert (cluster.host, cluster.namespace) == ("https://10.0.0.1:443", "studio")
    assert connect("other", account=tmp_path).namespace == "other"
