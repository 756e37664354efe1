"""A batch of four shots, and what the commands print. Worker processes are in tests/integration/cli/test_batch.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.batch.store import BatchStore
from gateway.cli.app import run
from tests.batches import open_store
from tests.unit.cli.batch.records import Printed


@pytest.fixture(autouse=True)
def no_cluster_or_farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    for name in ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shots(tmp_path: Path) -> str:
    """Manifest of four shots whose footage is no video."""
    (tmp_path / "plate.mp4").write_bytes(b"no video")
    rows = [{"id": f"s{number}", "footage": "plate.mp4", "output": f"out/{number}.mp4"} for number in range(4)]
    path = tmp_path / "night.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def store(tmp_path: Path, shots: str) -> BatchStore:
    """Store with the batch `night` of the engine farm."""
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 0
    return open_store(tmp_path / "data")


@pytest.fixture
def printed(store: BatchStore, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Gives stdout and stderr since the last call."""
    capsys.readouterr()

    def read() -> tuple[str, str]:
        shown = capsys.readouterr()
        return shown.out, shown.err

    return read
