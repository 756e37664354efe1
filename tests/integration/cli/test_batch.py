"""`dubstage batch submit` with worker processes. Shots that are dubbed to the end are in tests/system/test_batch.py."""

import json
from pathlib import Path

from gateway.batch.leases import batch_lease
from gateway.batch.types import ShotState
from gateway.cli.app import run
from tests.batches import open_store


def test_local_workers_exit_code(stages, tmp_path, monkeypatch, capsys) -> None:
    """Local workers try every shot and the exit code tells of failures."""
    for name, place in {"data_dir": str(tmp_path / "data"), "artefacts_url": str(stages.artefacts), **stages.endpoints()}.items():
        monkeypatch.setenv(f"DUBSTAGE_{name.upper()}", place)
    (tmp_path / "plate.mp4").write_bytes(b"no video")
    rows = [{"id": f"s{number}", "footage": "plate.mp4", "output": f"out/{number}.mp4"} for number in range(2)]
    shots = str(tmp_path / "night.jsonl")
    Path(shots).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(["batch", "submit", shots, "--workers", "1"]) == 10
    shown = capsys.readouterr()
    # The servers of the stages run in this process, and log to standard output too.
    assert shown.out.splitlines()[-1] == "batch night: 2 shots, 0 done, 2 failed"
    assert shown.err.count("warning: s") == 2
    assert run(["batch", "submit", shots, "--workers", "1"]) == 10
    assert "batch night exists and goes on: 2 shots, 0 done, 2 failed" in capsys.readouterr().err
    store = open_store(tmp_path / "data")
    assert [record.attempts for record in store.records("night")] == [1, 1]
    assert run(["batch", "retry", "night", "s1", "--set", "expressiveness=1.2", "--workers", "1"]) == 10
    assert [record.options for record in store.records("night")] == [{}, {"expressiveness": 1.2}], "the worker process read them"
    with batch_lease(store, "night"):
        assert run(["batch", "retry", "night"]) == 10
    assert "another `dubstage batch submit` runs batch night" in capsys.readouterr().err
    assert [record.state for record in store.records("night")] == [ShotState.FAILED, ShotState.FAILED]
