"""Tests of `dubstage batch run`, `submit`, `cancel`, `retry` and `remove`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dubstage.gateway.v1.dub_pb2 import Expression
from gateway.actors.store import ActorStore
from gateway.batch.leases import batch_lease
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.cli.app import run
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import read_manifest, shot_of_row
from tests.unit.cli.batch.records import Printed, done, failed


def test_farm_runs_remaining_rows(shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A farm gets one run for each row that is left."""
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "sbatch --array=0-3 --wrap 'dubstage batch run reel-7 --index $SLURM_ARRAY_TASK_ID'\n"
    assert "batch reel-7 is new: 4 shots, 0 done, 4 waiting" in shown.err
    assert "for workers of other machines, submit it with DUBSTAGE_DATABASE_URL of a PostgreSQL" in shown.err
    store = open_store(tmp_path / "data")
    store.put("reel-7", done(1))
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    shown = capsys.readouterr()
    assert "--array=0,2-3 " in shown.out
    assert "batch reel-7 exists and goes on: 4 shots, 1 done, 3 waiting" in shown.err
    for number in (0, 2, 3):
        store.put("reel-7", done(number))
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "reel-7"]) == 0
    assert capsys.readouterr().out == "batch reel-7: 4 shots, 4 done\n"


def test_manifest_mistakes_printed_before_start(shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All mistakes of a manifest are printed and nothing starts."""
    rows = [{"id": f"s{number}", "footage": f"{number}.mp4", "output": f"out/{number}.mp4"} for number in range(60)]
    Path(shots).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(["batch", "submit", shots]) == 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{shots}:1: footage: no such file {tmp_path}/0.mp4"
    assert len(lines) == 51
    assert lines[-1] == f"error: {shots}: 60 mistakes, 10 of them not shown; nothing was started"
    assert run(["-q", "batch", "submit", shots]) == 10
    assert capsys.readouterr().err.splitlines() == lines
    Path(shots).write_text(json.dumps(rows[0]))
    assert run(["batch", "submit", shots]) == 10
    assert capsys.readouterr().err == f"error: {shots}:1: footage: no such file {tmp_path}/0.mp4\n"
    assert names_of(open_store(tmp_path / "data")) == []


def test_actors_and_consent_checked_first(shots: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Actors and consent are looked up before anything starts."""
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
        (["--namespace", "studio"], "--namespace is an option of --engine kubernetes, not of local: leave it out"),
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


def test_other_manifest_or_engine_refused(store: BatchStore, shots: str, printed: Printed) -> None:
    """Another manifest or engine under the name is refused."""
    assert run(["batch", "submit", shots]) == 10
    assert "batch night belongs to the engine farm: give --engine farm, or choose another --name NAME" in printed()[1]
    store.put("night", done(0))
    Path(shots).write_text(Path(shots).read_text().replace("out/0", "out/9"))
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 10
    said = printed()[1]
    assert f"batch night has shots that are done and whose rows differ: {store.ids('night')[0]}." in said
    assert "dubstage batch retry night" in said
    assert store.manifest("night")[0].output.endswith("out/0.mp4")
    Path(shots).write_text("".join(Path(shots).read_text().splitlines(keepends=True)[1:]))
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 10
    assert "with another manifest" in printed()[1]


def test_corrected_rows_go_on(store: BatchStore, shots: str, printed: Printed) -> None:
    """Rows of failed and waiting shots are corrected under the same name. The finished shot stays."""
    first, second, *_ = store.ids("night")
    store.put("night", done(0))
    store.put("night", ShotRecord(id=second, state=ShotState.FAILED, exit_code=10, attempts=1))
    Path(shots).write_text(Path(shots).read_text().replace("out/1", "out/8").replace("out/2", "out/9"))
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 0
    assert "2 shots with changed rows begin anew" in printed()[1]
    assert [shot.output[-5] for shot in store.manifest("night")] == ["0", "8", "9", "3"]
    assert [record.state for record in store.records("night")] == [ShotState.DONE, *[ShotState.WAITING] * 3]
    assert store.records("night")[0].id == first
    assert run(["batch", "submit", shots, "--engine", "farm"]) == 0


def test_unreachable_cluster_status_and_submit(shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster that cannot be asked is a warning of status and an error of submit."""
    assert run(["batch", "submit", shots, "--engine", "kubernetes", "--context", "studio"]) in (10, 11, 20)
    assert "error: " in capsys.readouterr().err
    store = open_store(tmp_path / "data")
    assert store.find("night") is None
    store.create(read_manifest(Path(shots)), "kubernetes")
    assert run(["batch", "status", "night"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning: the cluster was not asked: ")
    assert "4 shots, 0 done, 4 waiting" in shown.out


def test_shots_are_cancelled_and_retried(store: BatchStore, printed: Printed) -> None:
    store.put("night", done(0))
    store.put("night", failed(1))
    assert run(["batch", "cancel", "night", "s2", "s0"]) == 0
    assert printed()[0] == "batch night: 4 shots, 1 done, 1 failed, 1 cancelled, 1 waiting\n"
    assert run(["batch", "cancel", "night"]) == 0
    assert printed()[0] == "batch night: 4 shots, 1 done, 1 failed, 2 cancelled\n"
    assert store.cancelled("night") == {"s2", "s3"}
    assert run(["batch", "retry", "night"]) == 0
    out, err = printed()
    assert (out, err.splitlines()[0]) == ("1-3\n", "3 shots begin anew")
    assert [record.state for record in store.records("night")] == [ShotState.DONE, *[ShotState.WAITING] * 3]
    assert run(["batch", "retry", "night", "s0"]) == 0
    assert store.record("night", "s0") == ShotRecord(id="s0")
    assert run(["batch", "retry", "night", "s9"]) == 10
    assert "batch night has no shot 's9'" in printed()[1]


def test_retry_with_other_options(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    """A retry changes options of one shot, and refuses what a manifest would refuse."""
    store.put("night", done(1))
    for given, said in {
        "sparkle=1": "sparkle: cannot be changed in a batch",
        "expressiveness=9": "expressiveness: takes",
        "expressiveness": "give OPTION=VALUE, such as seed=3",
    }.items():
        assert run(["batch", "retry", "night", "s1", "--set", given]) == 10
        assert said in printed()[1]
    assert run(["batch", "retry", "night", "s1", "--set", "seed=1", "--set", "seed=2"]) == 10
    assert "seed is given twice" in printed()[1]
    assert run(["batch", "retry", "night", "--set", "seed=1"]) == 10
    assert "name the one shot" in printed()[1]
    changes = ["expressiveness=1.2", "expression=neutral", "face=3", "personalize=false"]
    assert run(["batch", "retry", "night", "s1", *(part for one in changes for part in ("--set", one))]) == 0
    assert printed()[0] == "1\n"
    assert store.record("night", "s1") == ShotRecord(id="s1")
    dub = store.shot("night", 1).dub
    assert (dub.expressiveness, dub.expression, dub.face_id) == (1.2, Expression.EXPRESSION_NEUTRAL, 3)
    assert dub.skip_personalization
    with ActorStore(load_settings(GatewaySettings), claim_artefacts=False) as actors:
        (entry,) = [one for one in actors.audit.newest(9) if one["event"] == "batch.retried"]
    assert entry["details"] == {
        "shots": 1,
        "shot": "s1",
        "expressiveness": "1.2",
        "expression": "neutral",
        "face": "3",
        "personalize": "False",
    }


def test_retry_takes_engine_options(store: BatchStore, printed: Printed) -> None:
    """A retry takes the options of its engine only."""
    store.put("night", failed(3))
    assert run(["batch", "retry", "night", "--workers", "2"]) == 10
    assert run(["batch", "retry", "night", "--stages", "localhost"]) == 10
    said = printed()[1]
    assert "--workers does not go with --engine farm" in said
    assert "--stages is an option of --engine local, not of farm" in said
    assert store.record("night", "s3").state is ShotState.FAILED


def test_running_shot_needs_cancel_first(store: BatchStore, printed: Printed) -> None:
    """A running shot is not retried before it is cancelled."""
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, worker="node7:99"))
    assert run(["batch", "retry", "night", "s1"]) == 10
    assert "shot s1 is running by node7:99: wait, or cancel it first" in printed()[1]
    assert run(["batch", "cancel", "night", "s1"]) == 0
    assert run(["batch", "retry", "night", "s1"]) == 0
    assert store.record("night", "s1").state is ShotState.WAITING


def test_ended_batch_removed_videos_stay(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    """A batch that has ended is removed and its videos stay."""
    (tmp_path / "out").mkdir(exist_ok=True)
    video = tmp_path / "out" / "0.mp4"
    video.write_bytes(b"video")
    assert run(["batch", "remove", "night"]) == 10
    assert "4 shots of batch night have not ended" in printed()[1]
    assert run(["batch", "cancel", "night"]) == 0
    assert run(["batch", "remove", "night"]) == 0
    assert "batch night is removed" in printed()[0]
    assert names_of(store) == []
    assert video.exists()


def test_batch_under_command_stays(store: BatchStore, printed: Printed) -> None:
    """A batch whose shots another command gives to workers is not removed."""
    store.create(manifest_of("here", [shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")]), "local")
    assert run(["batch", "cancel", "here"]) == 0
    with batch_lease(store, "here"):
        assert run(["batch", "remove", "here"]) == 10
        assert "another `dubstage batch submit` runs batch here" in printed()[1]
    assert run(["batch", "remove", "here"]) == 0
    assert names_of(store) == ["night"]


def test_audit_log_records_retries(store: BatchStore, tmp_path: Path) -> None:
    """The audit log says what was retried and not what was refused."""

    def recorded() -> list[dict[str, object]]:
        with ActorStore(load_settings(GatewaySettings)) as actors:
            return [entry["details"] for entry in actors.audit.newest(100) if entry["event"] == "batch.retried"]

    store.create(manifest_of("theirs", [shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")]), "gateway")
    store.create(manifest_of("here", [shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")]), "local")
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, worker="node7:99"))
    for arguments in (["night", "s9"], ["night", "s1"], ["none"], ["theirs"], ["here", "b"]):
        assert run(["batch", "retry", *arguments]) == 10
    with batch_lease(store, "here"):
        assert run(["batch", "retry", "here"]) == 10
    assert recorded() == []
    store.put("night", failed(0))
    assert run(["batch", "retry", "night"]) == 0
    assert run(["batch", "retry", "night", "s2"]) == 0
    assert recorded() == [{"shots": "all"}, {"shots": 1}]


def test_cancelled_batch_removed_by_force(store: BatchStore, printed: Printed) -> None:
    """A batch whose worker was killed is removed by force when it is cancelled."""
    store.put("night", ShotRecord(id="s0", state=ShotState.RUNNING, attempts=1, worker="node7:99"))
    for number in (1, 2, 3):
        store.put("night", done(number))
    for force in ([], ["--force"]):
        assert run(["batch", "remove", "night", *force]) == 10, "a worker may have the shot"
    assert run(["batch", "cancel", "night"]) == 0
    assert "dubstage batch remove night --force" in printed()[1]
    assert run(["batch", "remove", "night"]) == 10
    assert "1 shots of batch night have not ended" in (said := printed()[1])
    assert "`dubstage batch remove night` with --force" in said
    assert run(["batch", "remove", "night", "--force"]) == 0
    assert names_of(store) == []


def test_gateway_batch_retried_by_gateway(store: BatchStore, printed: Printed) -> None:
    """A batch of the gateways is retried by a gateway."""
    store.create(manifest_of("theirs", [shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")]), "gateway")
    assert run(["batch", "cancel", "theirs"]) == 0
    assert run(["batch", "retry", "theirs"]) == 10
    assert "RetryBatch" in printed()[1]


def test_worker_row_from_farm_index(store: BatchStore, shots: str, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes its row from the index of its farm."""
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
def test_worker_without_row(arguments: list[str], said: str, printed: Printed) -> None:
    """A worker without a row says what is wrong."""
    assert run(["batch", "run", *arguments]) == 10
    assert said in printed()[1]


def test_worker_creates_batch_from_manifest(shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker with a manifest creates the batch and ends with the code of its shot."""
    assert run(["batch", "run", shots, "--index", "1"]) == 10
    assert "error: s1: " in capsys.readouterr().err
    store = open_store(tmp_path / "data")
    assert (store.facts("night").engine, store.facts("night").rows) == ("farm", 4)
    record = store.record("night", "s1")
    assert (record.state, record.attempts, record.exit_code) == (ShotState.FAILED, 1, 10)
    assert "plate.mp4" in record.error
    (tmp_path / "plate.mp4").unlink()
    assert run(["batch", "run", shots, "--index", "0"]) == 10
    assert store.record("night", "s0").state is ShotState.FAILED
