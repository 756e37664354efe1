"""`dubstage batch run`: the worker of a farm."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from gateway.cli.app import run
from tests.unit.cli.batch.records import Printed


def test_a_worker_takes_its_row_from_the_index_of_its_farm(
    store: BatchStore, shots: str, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {0: ["night", "--index", "0"], 2: ["night", "--index", "1", "--rows", "0,2-3"], 3: [shots, "--index-from", "CUE_FRAME"]}
    for number in (0, 2, 3):
        store.put("night", ShotRecord(id=f"s{number}", state=ShotState.FAILED, exit_code=11, error=f"error of {number}"))
    monkeypatch.setenv("CUE_FRAME", "3")
    for number, arguments in ended.items():
        assert run(["batch", "run", *arguments]) == 11
        assert printed()[1].splitlines()[-1] == f"error: s{number}: error of {number}"
    for variable in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.setenv(variable, "2")
        assert run(["batch", "run", "night"]) == 11
        assert "error of 2" in printed()[1]
        monkeypatch.setenv(variable, "two")
        assert run(["batch", "run", "night"]) == 10
        assert f"{variable} must hold the index of a row, from 0, and holds 'two'" in printed()[1]
        monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["night"],
            "no index was given: give --index NUMBER, --index-from VARIABLE, or set JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID",
        ),
        (["night", "--index-from", "NOWHERE"], "NOWHERE must hold the index of a row"),
        (["night", "--index", "0", "--index-from", "HOME"], "not both"),
        (["night", "--index", "4"], "there is no row 4: batch night has the rows 0 to 3"),
        (["night", "--index", "2", "--rows", "0-1"], "there is no row 2: --rows 0-1 has 2 rows, counted from 0"),
        (["night", "--index", "1", "--rows", "0,7"], "there is no row 7: batch night has the rows 0 to 3"),
        (["night", "--index", "0", "--rows", "0-999999999"], "a batch has at most the rows 0 to 99999"),
        (["none", "--index", "0"], "no batch 'none'"),
        (["none.jsonl", "--index", "0"], "none.jsonl: cannot be read: No such file"),
    ],
)
def test_a_worker_without_a_row_says_what_is_wrong(arguments: list[str], said: str, printed: Printed) -> None:
    assert run(["batch", "run", *arguments]) == 10
    assert said in printed()[1]


def test_a_worker_with_a_manifest_creates_the_batch_and_ends_with_the_code_of_its_shot(
    shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["batch", "run", shots, "--index", "1"]) == 10
    assert "error: s1: " in capsys.readouterr().err
    store = BatchStore(str(tmp_path / "data" / "batches"))
    assert (store.facts("night").engine, store.facts("night").rows) == ("farm", 4)
    record = store.record("night", "s1")
    assert (record.state, record.attempts, record.exit_code) == (ShotState.FAILED, 1, 10)
    assert "plate.mp4" in record.error
    (tmp_path / "plate.mp4").unlink()
    assert run(["batch", "run", shots, "--index", "0"]) == 10
    assert store.record("night", "s0").state is ShotState.FAILED
