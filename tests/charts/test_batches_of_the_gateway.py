"""A gateway that sends batches to Kubernetes (gateway.batchesOnKubernetes): its token, its Role, and what its workers reach."""

import ssl
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.batch.kubernetes.cluster import SERVICE_ACCOUNT, connect
from gateway.batch.kubernetes.engine import KubernetesEngine
from gateway.batch.store import BatchStore
from gateway.batch.types import manifest_of
from tests.batches import open_store
from tests.charts.rendering import COMPONENTS, NAMESPACE, Object, Rendered, pod_spec, render
from tests.charts.test_security import Authority
from tests.contract.kubernetes.job_api import Handler, JobApi
from tests.unit.batch.rows import shot_of_row

SHARED = "gateway.media.accessMode=ReadWriteMany"
DATABASE = "gateway.database.urlSecret.name=database"
ON = ("batch.enabled=true", "gateway.batchesOnKubernetes=true", DATABASE, SHARED)
TOKEN = "token-of-the-gateway"


def mounted(spec: Object, path: str) -> list[Object]:
    """The volumes that the containers of a pod mount at a path."""
    names = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"] if mount["mountPath"] == path}
    return [volume for volume in spec["volumes"] if volume["name"] in names]


def tokens(spec: Object) -> list[Object]:
    """All tokens that the volumes of a pod hold."""
    sources = [source for volume in spec["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    return [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]


def by_name(rendered: Rendered) -> dict[tuple[str, str], Object]:
    return {(item["kind"], item["metadata"]["name"]): item for item in rendered.objects}


def test_token_and_role_of_gateway() -> None:
    """Only if values say so has the gateway a role, and its pod alone a token, which expires."""
    rendered = render("batch")
    assert not any(tokens(pod["spec"]) for pod in rendered.pods())
    (binding,) = rendered.of("RoleBinding")
    accounts = {pod_spec(rendered.deployment(component))["serviceAccountName"] for component in COMPONENTS}
    assert not accounts & {subject["name"] for subject in binding["subjects"]}
    assert "DUBSTAGE_BATCH_CONFIG_MAP" not in rendered.environment("gateway")
    rendered = render("batch-gateway")
    held = {component: tokens(pod_spec(rendered.deployment(component))) for component in COMPONENTS}
    assert [component for component, found in held.items() if found] == ["gateway"]
    (token,) = held["gateway"]
    assert token == {"path": "token", "expirationSeconds": 3600}
    assert not any(tokens(pod_spec(job)) for job in rendered.jobs())
    (binding,) = render("batch-gateway", "gateway.enabled=false").of("RoleBinding")
    assert [subject["name"] for subject in binding["subjects"]] == ["dubstage-batch", "dubbing"]


def test_value_changes_only_batch_parts() -> None:
    """The value changes the gateway the binding and the media of the workers and nothing else."""
    off, on = (by_name(render("batch-gateway", f"gateway.batchesOnKubernetes={word}")) for word in ("false", "true"))
    assert off.keys() == on.keys()
    assert {key for key in on if on[key] != off[key]} == {
        ("Deployment", "dubstage-gateway"),
        ("NetworkPolicy", "dubstage-gateway"),
        ("RoleBinding", "dubstage-batch"),
        ("ConfigMap", "dubstage-batch"),
    }


def test_submitter_role_bound_to_gateway() -> None:
    for sets, release in (((), "dubstage"), ((), "studio"), (("gateway.serviceAccount.name=sender",), "dubstage")):
        rendered = render("batch-gateway", *sets, release=release)
        (role,), (binding,) = rendered.of("Role"), rendered.of("RoleBinding")
        account = pod_spec(rendered.deployment("gateway"))["serviceAccountName"]
        assert {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE} in binding["subjects"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert rendered.one("ServiceAccount", account)["automountServiceAccountToken"] is False
        named = [rule["resourceNames"] for rule in role["rules"] if rule["resources"] == ["configmaps"]]
        assert named == [[rendered.environment("gateway")["DUBSTAGE_BATCH_CONFIG_MAP"]]]


def test_workers_mount_gateway_media() -> None:
    """Workers have the media of the gateway at the same path, but no media of one node or that values mount."""
    for sets in ((), ("gateway.media.existingClaim=plates",), ("gateway.media.type=hostPath", "gateway.media.hostPath=/srv/media")):
        rendered = render("batch-gateway", *sets)
        place = rendered.environment("gateway")["DUBSTAGE_MEDIA_DIR"]
        (own,) = mounted(pod_spec(rendered.deployment("gateway")), place)
        for job in rendered.jobs():
            (workers,) = mounted(pod_spec(job), place)
            assert {**workers, "name": ""} == {**own, "name": ""}
    rendered = render("batch-gateway", "gateway.media.accessMode=ReadWriteOnce")
    assert not mounted(pod_spec(rendered.jobs()[0]), "/data/media")
    named = ("batch.extraVolumeMounts[0].name=plates", "batch.extraVolumeMounts[0].mountPath=/data/media")
    (volume,) = mounted(pod_spec(render("batch-gateway", *named).jobs()[0]), "/data/media")
    assert volume["persistentVolumeClaim"]["claimName"] == "plates"


def test_workers_have_credentials_of_media() -> None:
    """Credentials of the gateway's bucket reach the workers that read and write there, unless workers have their own."""
    named = ("AWS_ACCESS_KEY_ID", "AWS_REGION", "DUBSTAGE_OTHER")
    given = tuple(f"gateway.extraEnv[{at}].{key}={name}" for at, name in enumerate(named) for key in ("name", "value"))
    own = ("batch.extraEnv[0].name=AWS_REGION", "batch.extraEnv[0].value=eu-north-1")
    bucket = "gateway.settings.media_url=s3://videos/day"

    def added(*sets: str) -> list[Object]:
        before, after = (pod_spec(render("default", *ON, *one).jobs()[0])["containers"][0]["env"] for one in ((), sets))
        return [variable for variable in after if variable not in before]

    assert added(bucket, *given) == [{"name": name, "value": name} for name in named[:2]]
    assert added(bucket, *given, *own) == [{"name": named[0], "value": named[0]}, {"name": "AWS_REGION", "value": "eu-north-1"}]
    assert not added(*given)


class _Guarded(Handler):
    """Handler that answers only calls with the token."""

    def _serve(self, verb: str) -> None:
        # Names of schemes have no case. The client writes "bearer".
        scheme, _, credentials = self.headers["Authorization"].partition(" ")
        if (scheme.lower(), credentials) == ("bearer", TOKEN):
            super()._serve(verb)
        else:
            self._fail(401, "Unauthorized")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[JobApi, int, bytes]]:
    """An API over TLS on localhost: its state, its port, and its authority."""
    found, folder = JobApi(), tmp_path / "api"
    Authority().secret(folder, ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Guarded,), {"api": found}))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield found, server.server_port, (folder / "ca.crt").read_bytes()
    server.shutdown()
    server.server_close()


def as_the_kubelet_writes(volume: Object, folder: Path, authority: bytes) -> None:
    """Write the files of a projected volume."""
    for source in volume["projected"]["sources"]:
        match source:
            case {"serviceAccountToken": token}:
                (folder / token["path"]).write_text(TOKEN, encoding="utf-8")
            case {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": path}]}}:
                (folder / path).write_bytes(authority)
            case {"downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": "metadata.namespace"}}]}}:
                (folder / path).write_text(NAMESPACE, encoding="utf-8")
            case unknown:
                raise AssertionError(f"a source that no kubelet has: {unknown}")


def test_mounts_suffice_to_send_batch(api: tuple[JobApi, int, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, port, authority = api
    mounts = ("Mounts[0].name=videos", f"Mounts[0].mountPath={tmp_path}", "s[0].name=videos", "s[0].hostPath.path=/videos")
    rendered = render("default", *ON, *(f"{part}.extraVolume{each}" for part in ("gateway", "batch") for each in mounts))
    gateway: dict[str, Any] = rendered.environment("gateway")
    (volume,) = mounted(pod_spec(rendered.deployment("gateway")), str(SERVICE_ACCOUNT))
    account = tmp_path / "account"
    account.mkdir()
    as_the_kubelet_writes(volume, account, authority)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
    state.put("configmaps", rendered.one("ConfigMap", gateway["DUBSTAGE_BATCH_CONFIG_MAP"]))

    monkeypatch.setattr(BatchStore, "is_shared", True)
    store = open_store(tmp_path / "data")
    media = gateway["DUBSTAGE_MEDIA_DIR"]
    store.create(manifest_of("night", [shot_of_row(id="sh1", footage=f"{media}/a.mp4", output=f"{media}/b.mp4")]), "kubernetes")
    engine = KubernetesEngine(connect(account=account, read_s=60))
    sent = engine.submit(store, "night", config_map=gateway["DUBSTAGE_BATCH_CONFIG_MAP"])
    assert sent.jobs == ("dubstage-night-0-0",)
    assert state.job(sent.jobs[0])["metadata"]["namespace"] == NAMESPACE
