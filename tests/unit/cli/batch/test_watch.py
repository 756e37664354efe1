"""`dubstage batch watch`."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from gateway.batch.changes import to_retry
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from gateway.cli import batch_watch
from gateway.cli.app import run
from gateway.cli.batch_watch import BatchProgress
from services.common.errors import BackendUnavailable
from tests.unit.cli.batch.records import Printed, done, failed


def test_watch_ends_with_the_batch_and_its_exit_code_tells_of_failures(
    store: BatchStore, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [failed(3), done(2), done(1), done(0)]
    # Of this command alone: threads of other tests sleep too.
    monkeypatch.setattr(
        batch_watch, "time", SimpleNamespace(sleep=lambda _: store.put("night", left.pop()), monotonic=time.monotonic)
    )
    monkeypatch.setattr(BatchProgress.__init__, "__defaults__", (0.0,))
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
    assert to_retry(store, "night", []) == ["s2"]
    store.put("night", failed(0, 10))
    assert run(["batch", "watch", "night"]) == 10
    store.put("night", failed(0, 12))
    store.put("night", failed(1, 11))
    assert run(["batch", "watch", "night"]) == 12


def test_a_watch_outlives_a_store_that_does_not_answer_for_a_while(
    store: BatchStore, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        store.put("night", done(number))
    answers = [BackendUnavailable("the store of batches does not answer")] * 2
    read, pauses = BatchStore.records, list[float]()

    def records(asked: BatchStore, name: str) -> list[ShotRecord]:
        if answers:
            raise answers.pop()
        return read(asked, name)

    monkeypatch.setattr(BatchStore, "records", records)
    monkeypatch.setattr(batch_watch, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: 0.0))
    assert run(["batch", "watch", "night"]) == 0
    assert len(pauses) == 2

    answers.append(BackendUnavailable("the store of batches does not answer"))
    monkeypatch.setattr(batch_watch, "PATIENCE_S", -1.0)
    assert run(["batch", "watch", "night"]) == 20
    assert "the store of batches does not answer" in printed()[1]
