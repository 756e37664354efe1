"""Ports and settings of `dubstage serve`: each wrong value is refused with its variable and the remedy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.cli import serve
from gateway.cli.app import run
from gateway.cli.serve import MODULES, check_ports, further_ports, ports_of
from services.common.errors import InvalidRequestError
from services.common.server.settings import DEFAULT_PORTS, StageSettings
from tests.refusals import error_line, raised

SLOW = """
import os, pathlib, signal, sys, time
told = []
def tell(*_):
    told.append(time.monotonic())
    pathlib.Path(os.environ["TOLD"]).touch()
signal.signal(signal.SIGTERM, tell)
print("dubstage motion listening on 1", flush=True)
while not told or time.monotonic() < (told[0] + float(os.environ["CALL_S"]) if len(told) == 1 else told[1] + 0.5):
    time.sleep(0.01)
sys.exit(len(told))
"""
"""A server with a call of CALL_S, which ends .5 s after a second request to end. Its exit code is the number of requests."""


def test_every_server_has_its_default_port() -> None:
    assert ports_of({}) == DEFAULT_PORTS
    assert set(MODULES) == set(DEFAULT_PORTS)


def test_a_port_can_be_chosen_for_each_server() -> None:
    assert ports_of({"DUBSTAGE_FACE_PORT": "7000", "DUBSTAGE_MOTION_PORT": ""})["face"] == 7000


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "50052"])
def test_a_wrong_port_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"DUBSTAGE_(AUDIO|FACE)_PORT") as caught:
        ports_of({"DUBSTAGE_AUDIO_PORT": text})
    assert caught.value.field in ("DUBSTAGE_AUDIO_PORT", "DUBSTAGE_FACE_PORT")


def test_a_taken_port_is_refused_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequestError, match=rf"render server cannot listen on 127\.0\.0\.1:{port}") as caught:
            check_ports("127.0.0.1", {"render": port})
    assert "DUBSTAGE_RENDER_PORT" in caught.value.message


def test_foreign_host_names_setting() -> None:
    """A host that is no address of this machine is refused with its setting."""
    for host in ("nonsense.invalid", "203.0.113.7", "x" * 300):
        with raised(InvalidRequestError, match="set DUBSTAGE_HOST to an address of this machine", field="DUBSTAGE_HOST"):
            check_ports(host, {"audio": 50051})


@pytest.mark.parametrize("server", ["gateway", "all"])
def test_missing_media_folder(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A media folder that does not exist, or is a file, is refused before any server starts."""
    file = tmp_path / "file"
    file.touch()
    for place in (tmp_path / "none", file):
        monkeypatch.setenv("DUBSTAGE_MEDIA_DIR", str(place))
        assert run(["serve", server]) == 10
        assert error_line(capsys).startswith(f"error: DUBSTAGE_MEDIA_DIR: {place} ")
    if server == "gateway":
        started = subprocess.run([sys.executable, "-m", "gateway"], capture_output=True, text=True, timeout=120, check=False)
        assert (started.returncode, started.stderr.count("DUBSTAGE_MEDIA_DIR")) == (10, 1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DUBSTAGE_PORT", "x"), ("DUBSTAGE_PORT", "70000"), ("DUBSTAGE_MAX_QUEUED_RPCS", "-1"), ("DUBSTAGE_TLS_KEY_FILE", "/no/file")],
)
@pytest.mark.parametrize("server", ["audio", "render", "gateway"])
def test_wrong_setting_in_one_line(
    server: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong setting of a server is answered with one line."""
    monkeypatch.setenv(variable, value)
    assert run(["serve", server]) == 10
    assert variable.removeprefix("DUBSTAGE_").lower() in error_line(capsys).lower()


def test_taken_port_refused_before_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A taken port of one server is refused before the server starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("DUBSTAGE_PORT", str(taken.getsockname()[1]))
        assert run(["serve", "motion"]) == 10
    assert "set DUBSTAGE_PORT to another port" in capsys.readouterr().err


def test_every_server_has_a_separate_metrics_port() -> None:
    ports = further_ports(StageSettings(metrics_port=9000, health_port=0))
    assert [ports[name]["metrics_port"] for name in MODULES] == list(range(9000, 9006))
    assert {ports[name]["health_port"] for name in MODULES} == {0}
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_HEALTH_PORT"):
        further_ports(StageSettings(health_port=65533))


def test_ready_file_of_several_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`serve all` refuses `ready_file` in the settings file, which each server would write."""
    file = tmp_path / "settings.toml"
    file.write_text('ready_file = "/tmp/ready"\n')
    monkeypatch.setenv("DUBSTAGE_SETTINGS_FILE", str(file))
    assert run(["serve", "all"]) == 10
    assert capsys.readouterr().err.startswith(f"error: {file}: ready_file: ")


def test_device_of_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    """`dubstage serve` knows --device."""
    assert run(["serve", "render", "--device", "tpu"]) == 10
    assert "--device 'tpu' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(("call_s", "requests"), [(1, 1), (60, 2)])
def test_hurried_servers_are_told_again(call_s: int, requests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked once to end, and once more if they shall not wait for running calls."""
    monkeypatch.setattr(serve, "_PYTHON", (sys.executable, "-c", SLOW))
    told, servers, hurry = tmp_path / "told", serve.Servers(), threading.Event()
    if requests == 2:
        monkeypatch.setattr(hurry, "is_set", told.exists)
    servers.start("motion", {**os.environ, "TOLD": str(told), "CALL_S": str(call_s)})
    while servers.waiting():
        assert servers.ended() is None
        time.sleep(0.01)
    servers.stop(hurry)
    assert servers.ended() == ("motion", requests)
