"""A device that was asked for and is not there: nothing is computed on another device in its place."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def gpu_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the GPU build of ONNX Runtime, without the libraries of CUDA."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    package = f"onnxruntime-gpu=={version('onnxruntime')}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*pip, package], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"{package} cannot be installed here: {done.stderr.strip()[-200:]}")
    return folder


def run(gpu_build: Path, tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of dubstage with the GPU build in place of the usual one, and without a GPU."""
    path = os.pathsep.join(entry for entry in (str(gpu_build), os.environ.get("PYTHONPATH", "")) if entry)
    settings = {"DUBSTAGE_DEVICE": "cuda", "DUBSTAGE_DATA_DIR": str(tmp_path), "DUBSTAGE_METRICS_PORT": "0", "DUBSTAGE_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **settings, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_render_stage_refuses_to_start(gpu_build: Path, tmp_path: Path) -> None:
    """The render stage says in one line which library is missing, and what to do."""
    done = run(gpu_build, tmp_path, "services.render")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dubstage render:")]
    assert "cannot compute on a GPU here (lib" in line
    assert "onnxruntime-gpu[cuda,cudnn]" in line
    assert "Traceback" not in done.stderr


def test_doctor_finds_no_gpu(gpu_build: Path, tmp_path: Path) -> None:
    """`dubstage doctor` marks the renderers as wrong."""
    done = run(gpu_build, tmp_path, "gateway.cli", "doctor")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("wrong") and "renderers" in line]
    assert "cannot compute on a GPU here" in line
