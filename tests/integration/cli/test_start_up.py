"""Start-up of processes: libraries are loaded late, and numeric libraries use one thread."""

import os
import subprocess
import sys

import pytest

NETWORKS = {"torch", "openvino", "mediapipe", "onnxruntime", "matplotlib", "torchmetrics", "scipy"}
MEDIA = NETWORKS | {"numpy", "cv2", "av", "soxr", "jinja2", "grpc", "prometheus_client", "opentelemetry", "structlog", "alembic"}
STORES = {"sqlalchemy", "pydantic_settings", "fsspec", "cryptography"}
SHOW = """
import sys
from gateway.cli.app import run
code = run(sys.argv[1:])
print("code", code)
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "unneeded"),
    [
        pytest.param(["--help"], 0, MEDIA | STORES, id="help"),
        pytest.param(["dub", "--help"], 0, MEDIA | STORES, id="dub-help"),
        pytest.param(["plan", "--help"], 0, MEDIA | STORES, id="plan-help"),
        pytest.param(["actor", "list"], 0, MEDIA | {"cryptography"}, id="actor-list"),
        pytest.param(["batch", "list"], 0, MEDIA | {"cryptography"}, id="batch-list"),
        pytest.param(["dub", "missing.mp4", "-o", "out.mp4"], 10, NETWORKS, id="missing-footage"),
    ],
)
def test_a_command_loads_only_the_libraries_that_it_needs(arguments, code, unneeded, tmp_path) -> None:
    """Help and lists come without a wait for libraries of networks, media and calls."""
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "gateway.cli", "actor", "list"], env=environment, capture_output=True, check=True)
    done = subprocess.run([sys.executable, "-c", SHOW, *arguments], env=environment, capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()[-2:]
    assert said == f"code {code}", done.stderr
    assert not unneeded & set(loaded.split())


def test_stages_that_only_serve_do_not_load_torch() -> None:
    show = "import sys; from gateway.stages.local import compose_stages; compose_stages(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("package", ["services", "gateway"])
def test_every_package_keeps_numeric_libraries_to_one_thread(package: str) -> None:
    show = f"import {package}, cv2, os; print(cv2.getNumThreads(), os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
