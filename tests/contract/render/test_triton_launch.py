"""`python -m services.render.triton.launch` becomes a server."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.ports import free_port

MODULE = [sys.executable, "-m", "services.render.triton.launch"]


@pytest.fixture
def launched(triton_home: Path, repository: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    grpc, http, metrics = (free_port() for _ in range(3))
    left = Path(f"/dev/shm/dubstage-triton-{grpc}-of-one-that-was-killed")
    left.write_bytes(b"\0" * 64)
    ports = [f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}"]
    command = [*MODULE, "--repository", str(repository), "--home", str(triton_home), "--http-address", "0.0.0.0", *ports]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        yield process, http, left
        process.kill()


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def test_triton_answers_probes_only(launched) -> None:
    """The server answers probes from outside and nothing else, and ends on SIGTERM."""
    process, port, left = launched
    live = urllib.request.Request(f"http://127.0.0.1:{port}/v2/health/live")
    deadline = time.monotonic() + 120.0
    while status_of(live) != 200:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    load = urllib.request.Request(f"http://127.0.0.1:{port}/v2/repository/models/ugc/load", data=b"{}", method="POST")
    assert status_of(load) == 403
    assert not left.exists()
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_missing_installation_tells_remedy(tmp_path: Path) -> None:
    """Without an installation, the error tells how to get one."""
    done = subprocess.run(
        [*MODULE, "--repository", str(tmp_path), "--home", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 20
    assert "python -m services.render.triton.installation" in done.stderr
    assert "Traceback" not in done.stderr
