"""What `helm test` runs, taken from the rendered pod and run against real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.chassis.settings import DEFAULT_PORTS
from tests.charts.rendering import ROOT, STAGES, pod_spec, render


def run(*targets: str, patience_s: str) -> subprocess.CompletedProcess[str]:
    """The pod's own command, with this machine's interpreter."""
    (pod,) = render("default").of("Pod")
    (container,) = pod["spec"]["containers"]
    command = [sys.executable, *container["command"][1:], *targets]
    environment = {**os.environ, "DUBSTAGE_TEST_PATIENCE_S": patience_s}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real audio stage that is still starting."""
    ready: Path = tmp_path_factory.mktemp("audio") / "ready"
    environment = {
        **os.environ,
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_READY_FILE": str(ready),
        "DUBSTAGE_ARTEFACTS_URL": str(ready.parent),
    }
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


def test_it_succeeds_where_all_serve(audio: str) -> None:
    result = run(audio, f"dns:///{audio}", patience_s="120")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{audio} serves", f"dns:///{audio} serves"]


def test_it_fails_and_names_the_server_that_does_not_answer(audio: str) -> None:
    result = run(audio, "127.0.0.1:1", patience_s="0")
    assert result.returncode == 1
    assert f"{audio} serves" in result.stdout
    assert result.stderr.startswith("127.0.0.1:1: ")


def test_it_asks_every_stage_and_the_gateway() -> None:
    (pod,) = render("default").of("Pod")
    expected = [f"dns:///dubstage-{name}:{DEFAULT_PORTS[name]}" for name in (*STAGES, "gateway")]
    assert pod["spec"]["containers"][0]["args"] == expected
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_a_stage_of_another_release_is_asked_too() -> None:
    endpoint = "dns:///elsewhere.other:50055"
    (pod,) = render("default", "render.enabled=false", f"gateway.endpoints.render={endpoint}").of("Pod")
    assert endpoint in pod["spec"]["containers"][0]["args"]


def test_the_pod_shows_the_gateways_certificate_where_there_is_tls() -> None:
    (pod,) = render("production").of("Pod")
    (container,) = pod["spec"]["containers"]
    assert {"name": "DUBSTAGE_TLS_DIR", "value": "/etc/dubstage/tls"} in container["env"]
    (volume,) = [item for item in pod["spec"]["volumes"] if item["name"] == "tls"]
    assert volume["secret"]["secretName"] == "dubstage-gateway-tls"


def test_its_pod_stays_until_its_log_was_read() -> None:
    (pod,) = render("default").of("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"


def test_its_pod_runs_where_the_gateway_runs() -> None:
    (pod,) = render("everything", "gateway.nodeSelector.zone=a").of("Pod")
    gateway = pod_spec(render("everything", "gateway.nodeSelector.zone=a").deployment("gateway"))
    assert pod["spec"]["nodeSelector"] == gateway["nodeSelector"] == {"pool": "media", "zone": "a"}
    assert pod["spec"]["tolerations"] == gateway["tolerations"]
