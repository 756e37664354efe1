"""`dubstage serve`: processes that start together and end together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.child_process import child_environment
from gateway.cli.serve import MODULES
from tests.contract.ports import free_port
from tests.integration.client_calls import until


def free_ports(count: int) -> list[int]:
    """Return several ports as `free_port` does."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ports = dict(zip(MODULES, free_ports(len(MODULES)), strict=True))
    return {
        **os.environ,
        **{f"DUBSTAGE_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        "DUBSTAGE_DATA_DIR": str(tmp_path / "data"),
        "DUBSTAGE_ARTEFACTS_URL": str(tmp_path / "artefacts"),
    }


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts; none outlives it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def serve_all(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", "gateway.cli", "serve", "all"], env=environment, stdout=out, stderr=out)


def test_server_ignores_modules_in_folder(environment, tmp_path, started) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('a file of the user')\n")
    log = tmp_path / "log"
    command = [sys.executable, "-P", "-m", "gateway.cli", "serve", "audio"]
    own = {**child_environment(), **environment, "DUBSTAGE_PORT": "0"}
    with log.open("wb") as out:
        started.append(subprocess.Popen(command, cwd=tmp_path, env=own, stdout=out, stderr=out))
    until(lambda: started[0].poll() is not None or b"dubstage audio listening on " in log.read_bytes())
    assert started[0].poll() is None, log.read_text()


def gone(children: list[psutil.Process]) -> bool:
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_killed_server_ends_others(environment: dict[str, str], started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = serve_all(environment, log)
    started.append(process)
    until(lambda: b"dubstage all listening" in log.read_bytes() or process.poll() is not None, seconds=300)
    assert process.poll() is None, log.read_text()
    children = psutil.Process(process.pid).children()
    assert len(children) == len(MODULES)
    (texture,) = (child for child in children if child.cmdline()[-1] == "services.texture")
    texture.kill()
    assert process.wait(timeout=120) == 1
    assert gone(children)
    text = log.read_text()
    assert "the texture server was killed by signal 9" in text
    assert "Traceback" not in text


def test_servers_end_with_parent(environment: dict[str, str], started: list[subprocess.Popen[bytes]]) -> None:
    """Servers end when the process that started them is killed."""
    program = (
        "import os, time\n"
        "from gateway.cli.serve import Servers\n"
        "servers = Servers()\n"
        "servers.start('audio', {**os.environ, 'DUBSTAGE_PORT': '0'})\n"
        "while servers.waiting(): time.sleep(0.05)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    started.append(process)
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    children = psutil.Process(process.pid).children()
    assert len(children) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: gone(children), seconds=120)


def test_taken_port_named_at_start(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "serve", "all"],
            env={**environment, "DUBSTAGE_MOTION_PORT": port},
            capture_output=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 10
    text = done.stderr.decode()
    assert f"127.0.0.1:{port}" in text
    assert "DUBSTAGE_MOTION_PORT" in text
    assert "Traceback" not in text
