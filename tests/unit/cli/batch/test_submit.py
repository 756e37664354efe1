"""`dubstage batch submit`: what users type and see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.batch.manifest import read_manifest
from gateway.batch.store import BatchStore
from gateway.cli.app import run
from tests.unit.cli.batch.records import Printed, done


def test_a_farm_gets_one_run_for_each_row_that_is_left(shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "sbatch --array=0-3 --wrap 'dubstage batch run reel-7 --index $SLURM_ARRAY_TASK_ID'\n"
    assert "batch reel-7 is new: 4 shots, 0 done, 4 waiting" in shown.err
    assert f"export DUBSTAGE_BATCHES_URL=file://{tmp_path}/data/batches" in shown.err
    store = BatchStore(str(tmp_path / "data" / "batches"))
    store.put("reel-7", done(1))
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    shown = capsys.readouterr()
    assert "--array=0,2-3 " in shown.out
    assert "batch reel-7 exists and goes on: 4 shots, 1 done, 3 waiting" in shown.err
    for number in (0, 2, 3):
        store.put("reel-7", done(number))
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    assert capsys.readouterr().out == "batch reel-7: 4 shots, 4 done\n"


def test_all_mistakes_of_a_manifest_are_printed_and_nothing_starts(
    shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"s{number}", "footage": f"{number}.mp4", "output": f"out/{number}.mp4"} for number in range(60)]
    Path(shots).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(["batch", "submit", shots]) == 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{shots}:1: footage: no such file {tmp_path}/0.mp4"
    assert len(lines) == 51
    assert lines[-1] == f"error: {shots}: 60 mistakes, 10 of them not shown; nothing was started"
    Path(shots).write_text(json.dumps(rows[0]))
    assert run(["batch", "submit", shots]) == 10
    assert capsys.readouterr().err == f"error: {shots}:1: footage: no such file {tmp_path}/0.mp4\n"
    assert not (tmp_path / "data" / "batches").exists()


def test_actors_and_consent_are_looked_up_before_anything_starts(
    shots: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in Path(shots).read_text().splitlines()]
    Path(shots).write_text("".join(f"{json.dumps({**row, 'actor': 'nobody'})}\n" for row in rows[:2]))
    assert run(["batch", "submit", shots]) == 10
    assert f"{shots}:2: actor: no actor 'nobody'" in capsys.readouterr().err
    monkeypatch.setenv("DUBSTAGE_REQUIRE_CONSENT", "1")
    Path(shots).write_text(f"{json.dumps(rows[0])}\n")
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 10
    assert ":1: consent: this installation requires a consent record" in capsys.readouterr().err
    assert run(["batch", "submit", shots, "--engine", "farm", "--no-check"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "cloud"], "--engine 'cloud' is unknown; there are: local, kubernetes, farm"),
        (["--namespace", "films"], "--namespace is an option of --engine kubernetes, not of local: leave it out"),
        (["--engine", "farm", "--profile", "gpu"], "--profile is an option of --engine kubernetes"),
        (["--engine", "kubernetes", "--stages", "here"], "--stages is an option of --engine local"),
        (["--engine", "farm", "--workers", "2"], "--workers does not go with --engine farm"),
        (["--name", "Night 12"], "'Night 12' is no name of a batch"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], said: str, shots: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["batch", "submit", shots, *arguments]) == 10
    assert said in capsys.readouterr().err


def test_another_manifest_or_engine_under_the_name_is_refused(store: BatchStore, shots: str, printed: Printed) -> None:
    assert run(["batch", "submit", shots]) == 10
    assert "batch night belongs to the engine farm: give --engine farm, or choose another --name NAME" in printed()[1]
    Path(shots).write_text(Path(shots).read_text().replace("out/0", "out/9"))
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 10
    assert "with another manifest" in printed()[1]
    assert store.manifest("night")[0].output.endswith("out/0.mp4")


def test_a_cluster_that_cannot_be_asked_is_a_warning_of_status_and_an_error_of_submit(
    shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["batch", "submit", shots, "--engine", "kubernetes", "--context", "studio"]) in (10, 11, 20)
    assert "error: " in capsys.readouterr().err
    store = BatchStore(str(tmp_path / "data" / "batches"))
    assert store.find("night") is None
    store.create(read_manifest(Path(shots)), "kubernetes")
    assert run(["batch", "status", "night"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning: the cluster was not asked: ")
    assert "4 shots, 0 done, 4 waiting" in shown.out
