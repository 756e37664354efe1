"""Training in several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.test_serve import free_ports
from tests.unit.research.training.tiny import RESULT, main, run, with_loop

ROOT = Path(__file__).parents[3]


def test_worker_processes_make_the_same_batches(tmp_path: Path) -> None:
    run(tmp_path / "none", with_loop(batches=2))
    run(tmp_path / "two", with_loop(batches=2, workers=2))
    assert (tmp_path / "two" / RESULT).read_bytes() == (tmp_path / "none" / RESULT).read_bytes()


@pytest.mark.long
def test_two_processes_equal_two_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes compute what one computes with two batches."""
    config = with_loop(batches=2)
    run(tmp_path / "one", config)
    (port,) = free_ports(1)
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    command = [sys.executable, "-m", "tests.unit.research.training.tiny", str(tmp_path / "two")]
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as other:
        main(tmp_path / "two", config)
        told = other.communicate(timeout=300)[1]
    assert other.returncode == 0, told
    two, one = load_file(tmp_path / "two" / RESULT), load_file(tmp_path / "one" / RESULT)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=0)
