"""Start-up of processes: libraries are loaded late, and numeric libraries use one thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "openvino", "mediapipe", "onnxruntime", "matplotlib", "torchmetrics", "scipy")
SHOW = f"""
import sys
from gateway.cli.app import run
code = run(sys.argv[1:])
print("code", code, "heavy", sorted(set({HEAVY!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["dub", "missing.mp4", "-o", "out.mp4"], 10)],
)
def test_commands_that_compute_nothing_load_no_heavy_library(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"code {code} heavy []", done.stderr


def test_stages_that_only_serve_do_not_load_torch() -> None:
    show = "import sys; from gateway.stages.local import compose_stages; compose_stages(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("package", ["services", "gateway"])
def test_every_package_keeps_numeric_libraries_to_one_thread(package: str) -> None:
    show = f"import {package}, cv2, os; print(cv2.getNumThreads(), os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
