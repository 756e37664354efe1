"""Tests of the command of `helm test`, taken from the rendered pod and run against real servers."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.common.server.server import StageServer
from services.common.server.settings import DEFAULT_PORTS, StageSettings
from tests.charts.rendering import ROOT, STAGES, pod_spec, render


def run(*targets: str, patience_s: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The pod's own command, with this machine's interpreter."""
    (pod,) = render("default").of("Pod")
    (container,) = pod["spec"]["containers"]
    command = [sys.executable, *container["command"][1:], *targets]
    environment = {**os.environ, "DUBSTAGE_TEST_PATIENCE_S": patience_s, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real audio stage that is still starting."""
    ready: Path = tmp_path_factory.mktemp("audio") / "ready"
    own = {"DUBSTAGE_PORT": "0", "DUBSTAGE_READY_FILE": str(ready), "DUBSTAGE_ARTEFACTS_URL": str(ready.parent)}
    environment = {**os.environ, **own}
    process = subprocess.Popen([sys.executable, "-m", "services.audio"], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while not ready.is_file():
            assert process.poll() is None, "the audio stage ended"
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        yield ready.read_text().strip()
    finally:
        process.terminate()
        process.wait()


def test_pod_has_labels_of_the_gateway() -> None:
    """Policies of a cluster that want labels or annotations on every pod let the test pod in."""
    sets = ("global.defaults.podLabels.team=dubs", "gateway.podLabels.cost=low", "gateway.podAnnotations.mesh=none")
    (pod,) = render("default", *sets).of("Pod")
    assert pod["metadata"]["labels"].items() >= {"team": "dubs", "cost": "low", "dubstage.io/calls-stages": "true"}.items()
    assert pod["metadata"]["annotations"].items() >= {"mesh": "none", "helm.sh/hook": "test"}.items()


def test_silent_server_is_named(audio: str) -> None:
    """The test succeeds where all serve, and otherwise names the server that does not answer."""
    result = run(audio, f"dns:///{audio}", patience_s="120")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{audio} serves", f"dns:///{audio} serves"]
    result = run(audio, "127.0.0.1:1", patience_s="0")
    assert result.returncode == 1
    assert f"{audio} serves" in result.stdout
    assert result.stderr.startswith("127.0.0.1:1: ")


def test_pod_sends_each_servers_token(tmp_path: Path) -> None:
    files = {"gateway": tmp_path / "gateway", "stage": tmp_path / "stage"}
    files["gateway"].write_text("# customers\nacme token-of-acme\n")
    files["stage"].write_text("token-of-the-stages\n")
    servers = {name: _serve(StageSettings(drain_grace_s=0, auth_token_file=file)) for name, file in files.items()}
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(server) for name, server in servers.items()}
        variables = {
            "DUBSTAGE_TEST_GATEWAY": addresses["gateway"],
            "DUBSTAGE_AUTH_TOKEN_FILE": str(files["gateway"]),
            "DUBSTAGE_STAGES_TOKEN_FILE": str(files["stage"]),
        }
        result = run(*addresses.values(), patience_s="60", **variables)
        assert result.returncode == 0, result.stderr
        refused = run(addresses["stage"], patience_s="0")
        assert refused.returncode == 1
        assert "bearer token" in refused.stderr


@contextmanager
def _serve(settings: StageSettings) -> Iterator[str]:
    """Serve health from a thread. Yield the address."""
    address: Future[str] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with StageServer("audio", settings, register=lambda _: None, services=()) as server:
            address.set_result(server.address)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield address.result(60)
    finally:
        over.set()
        thread.join()


def test_pod_mounts_tokens_and_certificate() -> None:
    """The pod mounts the tokens that it sends, and shows the gateway's certificate where there is TLS."""
    (pod,) = render("production").of("Pod")
    (container,) = pod["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables["DUBSTAGE_TEST_GATEWAY"] == container["args"][-1]
    mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
    secrets = {item["name"]: item["secret"] for item in pod["spec"]["volumes"] if "secret" in item}
    for variable, secret, key in (
        ("DUBSTAGE_AUTH_TOKEN_FILE", "dubstage-tokens", "tokens"),
        ("DUBSTAGE_STAGES_TOKEN_FILE", "dubstage-stages-token", "token"),
    ):
        folder, _, name = variables[variable].rpartition("/")
        source = secrets[mounts[folder]]
        assert (source["secretName"], source["items"]) == (secret, [{"key": key, "path": name}])
    assert {"name": "DUBSTAGE_TLS_DIR", "value": "/etc/dubstage/tls"} in container["env"]
    (volume,) = [item for item in pod["spec"]["volumes"] if item["name"] == "tls"]
    assert volume["secret"]["secretName"] == "dubstage-gateway-tls"


def test_pod_asks_every_server() -> None:
    """The pod asks every stage and the gateway, runs where the gateway runs, and stays until its log was read."""
    (pod,) = render("default").of("Pod")
    expected = [f"dns:///dubstage-{name}:{DEFAULT_PORTS[name]}" for name in (*STAGES, "gateway")]
    assert pod["spec"]["containers"][0]["args"] == expected
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    endpoint = "dns:///elsewhere.other:50055"
    (pod,) = render("default", "render.enabled=false", f"gateway.endpoints.render={endpoint}").of("Pod")
    assert endpoint in pod["spec"]["containers"][0]["args"]
    (pod,) = render("default").of("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    (pod,) = render("everything", "gateway.nodeSelector.zone=a").of("Pod")
    gateway = pod_spec(render("everything", "gateway.nodeSelector.zone=a").deployment("gateway"))
    assert pod["spec"]["nodeSelector"] == gateway["nodeSelector"] == {"pool": "media", "zone": "a"}
    assert pod["spec"]["tolerations"] == gateway["tolerations"]


def test_resting_stages_are_not_asked() -> None:
    """A healthy release at rest has no pod of a stage that KEDA starts, but a stage of another release is asked."""
    (pod,) = render("keda").of("Pod")
    gateway = f"dns:///dubstage-gateway:{DEFAULT_PORTS['gateway']}"
    assert pod["spec"]["containers"][0]["args"] == [gateway]
    endpoint = "dns:///elsewhere.other:50055"
    sets = ("render.enabled=false", f"gateway.endpoints.render={endpoint}", "face.autoscaling.minReplicas=1")
    (pod,) = render("keda", *sets).of("Pod")
    assert pod["spec"]["containers"][0]["args"] == [f"dns:///dubstage-face:{DEFAULT_PORTS['face']}", endpoint, gateway]
