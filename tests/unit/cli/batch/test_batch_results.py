"""Tests of `dubstage batch decisions` and of the states of `kitsu`; tests/integration/cli/test_batch_delivery.py has `deliver`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gateway.batch.store import BatchStore
from gateway.cli.app import run
from gateway.cli.batch_results import statuses_of
from services.common.errors import InvalidRequestError
from tests.unit.cli.batch.records import Printed, done


def test_decisions_are_written_as_files(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    """CSV has all decisions, and says which count. Another format is refused."""
    store.put("night", done(1).model_copy(update={"output_sha256": f"{1:064x}", "frame_rate": "25"}))
    for said in (["--reject", "--note", "=cmd"], ["--approve"]):
        assert run(["batch", "review", "night", "s1", *said]) == 0
    file = tmp_path / "decisions.csv"
    assert run(["batch", "decisions", "night", "--output", str(file)]) == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["state"], row["present"], row["note"]) for row in rows] == [
        ("rejected", "false", "'=cmd"),
        ("approved", "true", ""),
    ]
    assert run(["batch", "decisions", "night", "--output", str(tmp_path / "x"), "--format", "xml"]) == 10
    assert "there are: csv, edl, otio" in printed()[1]
    assert not (tmp_path / "x").exists()


def test_statuses_are_named_by_state() -> None:
    assert statuses_of(["approved=ok", "failed=wtg"]).items() >= {"approved": "ok", "failed": "wtg", "rejected": "retake"}.items()
    for wrong in ("seen=ok", "approved=", "undecided=ok"):
        with pytest.raises(InvalidRequestError, match="give STATE=SHORT-NAME") as caught:
            statuses_of([wrong])
        assert caught.value.field == "status"
