"""Tests of `dubstage batch watch`, `status`, `list` and `report`."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.batch.changes import to_retry
from gateway.batch.records import ShotWork
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from gateway.cli import batch_watch
from gateway.cli.app import run
from services.common.errors import BackendUnavailableError
from tests.unit.cli.batch.records import Printed, done, failed


def test_status_shows_every_shot_and_the_counts(store: BatchStore, printed: Printed) -> None:
    store.put("night", done(0, r_opening=0.914, look=("r 0.91 is under 0.95",), warnings=("a little dark",)))
    store.put("night", failed(1))
    store.put("night", ShotRecord(id="s2", state=ShotState.RUNNING, attempts=2, worker="node7:99"))
    assert run(["batch", "status", "night"]) == 0
    lines = [re.sub(" +", " ", line).strip() for line in printed()[0].splitlines()]
    assert lines == [
        "shot state tries frames dubbed r time what",
        "s0 done 1 100 90 0.91 10 s look: r 0.91 is under 0.95; a little dark",
        "s1 failed 1 no [red]face\\x1b",
        "s2 running 2 node7:99",
        "s3 waiting 0",
        "batch night, engine farm: 4 shots, 1 done (1 to look at), 1 failed, 1 running, 1 waiting, 10.0 frames a second, "
        "about 0:00:20 left",
    ]
    assert run(["batch", "status", "night", "--only", "failed", "--only", "look"]) == 0
    assert [line.split()[0] for line in printed()[0].splitlines()] == ["shot", "s0", "s1", "batch"]
    assert run(["batch", "status", "night", "--only", "lost"]) == 10
    assert "--only 'lost' is no state; there are: waiting, running, done, undubbed, failed, cancelled, look" in printed()[1]
    assert run(["batch", "shots", "night", "--state", "lost"]) == 10
    assert "--state 'lost' is no state; there are: waiting" in printed()[1]


def test_status_as_json(store: BatchStore, printed: Printed) -> None:
    """Status as JSON has the batch its progress and its records."""
    store.put("night", done(2))
    assert run(["batch", "status", "night", "--json"]) == 0
    document = json.loads(printed()[0])
    batch, progress = document["batch"], document["batch"]["progress"]
    assert (batch["name"], batch["rowsSha256"]) == ("batches/night", store.facts("night").manifest_sha256)
    assert (progress["numDone"], progress["numWaiting"], progress["framesPerSecond"]) == ("1", "3", 10.0)
    shots = [(shot["name"], shot["state"], shot["attempts"]) for shot in document["shots"]]
    assert shots == [
        (f"batches/night/shots/{record.id}", f"SHOT_STATE_{record.state.upper()}", record.attempts)
        for record in store.records("night")
    ]


def test_long_lists_are_cut(store: BatchStore, printed: Printed) -> None:
    store.put("night", done(0))
    for number in (1, 2, 3):
        store.put("night", failed(number))
    for command, line in (
        (["status", "night", "--only", "failed", "--limit", "1"], "s1 failed 1"),
        (["shots", "night", "--state", "failed", "--limit", "1"], "s1 failed 1.00"),
    ):
        assert run(["batch", *command]) == 0
        out, err = printed()
        assert re.sub(" +", " ", out.splitlines()[1]).startswith(line)
        assert "2 more shots are not shown" in err
    assert run(["batch", "status", "night", "--json", "--limit", "2"]) == 0
    document = json.loads(printed()[0])
    assert [shot["name"].rpartition("/")[2] for shot in document["shots"]] == ["s0", "s1"]
    assert document["batch"]["progress"]["numFailed"] == "3"


def test_batches_are_listed_with_their_counts(store: BatchStore, shots: str, printed: Printed) -> None:
    store.put("night", done(0))
    store.put("night", failed(1))
    assert run(["batch", "submit", shots, "--engine", "farm", "--name", "zz"]) == 0
    printed()
    assert run(["batch", "list"]) == 0
    rows = [line.split() for line in printed()[0].splitlines()]
    assert [(row[0], row[1], row[-6:]) for row in rows[1:]] == [
        ("night", "farm", ["4", "1", "0", "1", "0", "2"]),
        ("zz", "farm", ["4", "0", "0", "0", "0", "4"]),
    ]


def test_without_batches_the_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", "list"]) == 0
    assert "no batches in sqlite:" in capsys.readouterr().err
    assert run(["batch", "status", "night"]) == 10
    assert "no batch 'night' in" in capsys.readouterr().err


def test_a_report_is_written(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    store.put("night", done(0))
    assert run(["batch", "report", "night", str(tmp_path / "report")]) == 0
    assert printed()[0] == f"{tmp_path}/report/index.html\n"
    assert {"index.html", "shots.csv", "shots.json"} <= {path.name for path in (tmp_path / "report").iterdir()}


def test_watch_exit_code(store: BatchStore, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch ends with the batch and its exit code tells of failures."""
    left = [failed(3), done(2), done(1), done(0)]
    # Only this command's sleep counts: threads of other tests sleep too.
    monkeypatch.setattr(
        batch_watch,
        "time",
        SimpleNamespace(sleep=lambda _: store.put("night", left.pop()), monotonic=time.monotonic, time=time.time),
    )
    monkeypatch.setattr(batch_watch, "LINE_SECONDS", 0.0)
    assert run(["batch", "watch", "night"]) == 10
    out, err = printed()
    assert out == "batch night: 4 shots, 3 done, 1 failed\n"
    assert err.splitlines() == [
        "no shot is running now: submit the manifest of batch night again to go on",
        "4 shots, 0 done, 4 waiting",
        "4 shots, 1 done, 3 waiting",
        "4 shots, 2 done, 2 waiting",
        "4 shots, 3 done, 1 waiting",
        "4 shots, 3 done, 1 failed",
        "warning: s3: no [red]face\\x1b",
    ]
    store.put("night", done(3))
    assert run(["batch", "watch", "night"]) == 0
    reason = "none of the 100 frames is dubbed"
    store.put("night", done(2).model_copy(update={"state": ShotState.UNDUBBED, "exit_code": 13, "look": (reason,)}))
    printed()
    assert run(["batch", "watch", "night"]) == 13
    out, err = printed()
    assert out == "batch night: 4 shots, 3 done, 1 undubbed\n"
    assert err.splitlines()[-1] == f"warning: s2: {reason}"
    assert run(["-q", "batch", "watch", "night"]) == 13
    assert printed()[1] == f"warning: s2: {reason}\n"
    assert to_retry(store, "night", []) == ["s2"]
    store.put("night", failed(0, 10))
    assert run(["batch", "watch", "night"]) == 10
    store.put("night", failed(0, 12))
    store.put("night", failed(1, 11))
    assert run(["batch", "watch", "night"]) == 12


def test_watch_outlives_store_outage(store: BatchStore, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch outlives a store that does not answer for a while."""
    for number in range(4):
        store.put("night", done(number))
    answers = [BackendUnavailableError("the database does not answer")] * 2
    read, pauses = BatchStore.work, list[float]()

    def work(asked: BatchStore, name: str) -> list[ShotWork]:
        if answers:
            raise answers.pop()
        return read(asked, name)

    monkeypatch.setattr(BatchStore, "work", work)
    monkeypatch.setattr(batch_watch, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: 0.0, time=time.time))
    assert run(["batch", "watch", "night"]) == 0
    assert len(pauses) == 2

    answers.append(BackendUnavailableError("the database does not answer"))
    monkeypatch.setattr(batch_watch, "PATIENCE_S", -1.0)
    assert run(["batch", "watch", "night"]) == 20
    assert "the database does not answer" in printed()[1]
