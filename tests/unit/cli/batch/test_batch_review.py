"""Tests of `dubstage batch review`, `shots` and `retry --rejected`."""

from __future__ import annotations

import pytest

from gateway.actors.store import ActorStore
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotState
from gateway.cli.app import run
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.unit.cli.batch.records import Printed, done, failed


@pytest.fixture(autouse=True)
def ended(store: BatchStore) -> None:
    """Three of four shots are done, one has failed. The third shot has the highest risk of the three."""
    for number in range(3):
        store.put("night", done(number).model_copy(update={"output_sha256": f"{number:064x}", "frame_rate": "25"}))
    store.put("night", done(2).model_copy(update={"output_sha256": f"{2:064x}", "frame_rate": "25", "look": ("look at it",)}))
    store.put("night", failed(3))


def review(shot: str, *options: str) -> int:
    return run(["batch", "review", "night", shot, *options])


def shown_ids(printed: Printed, *options: str) -> list[str]:
    printed()
    assert run(["batch", "shots", "night", *options]) == 0
    _, *rows = printed()[0].splitlines()
    return [row.split()[0] for row in rows if row.split()]


def test_review_stores_and_prints_decision(store: BatchStore, printed: Printed) -> None:
    """A decision is stored with its frame and region, printed, and entered in the audit log without names."""
    pinned = ["--note", "the chin slips", "--frame", "3", "--region", "0.25,0.5,0.5,0.3"]
    assert review("s1", "--reject", "--by", "Ada", *pinned) == 0
    assert printed()[0].strip() == "s1: rejected by Ada: the chin slips [x 0.25 y 0.5 width 0.5 height 0.3]"
    (decision,) = store.decisions("night", "s1")
    assert (decision.state, decision.frame, decision.reviewer) == ("rejected", 3, "Ada")
    with ActorStore(load_settings(GatewaySettings)) as actors:
        (entry,) = (entry for entry in actors.audit.newest(20) if entry["event"] == "shot.reviewed")
    assert "Ada" not in str(entry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --approve, --reject and --assign WHO"),
        (["--approve", "--reject"], "give one of --approve, --reject and --assign WHO"),
        (["--reject", "--region", "1,2"], "give X,Y,W,H as shares"),
        (["--reject", "--region", "0.9,0,0.5,1"], "X + WIDTH"),
        (["--reject", "--frame", "100000"], "is not in the video"),
        (["--reject", "--note", "a\x1bb"], "control characters"),
    ],
)
def test_wrong_decisions_are_refused(options: list[str], message: str, store: BatchStore, printed: Printed) -> None:
    assert review("s1", *options) == 10
    assert message in printed()[1]
    assert store.decisions("night", "s1") == []


def test_failed_shots_take_no_decision(store: BatchStore, printed: Printed) -> None:
    assert review("s3", "--approve", "--by", "Ada") == 10
    assert "shot s3 is failed and has no finished video" in printed()[1]
    assert store.decisions("night", "s3") == []


def test_unknown_shot_cannot_be_reviewed(printed: Printed) -> None:
    assert review("s9", "--approve") == 10
    assert "batch night has no shot 's9'" in printed()[1]


def test_shots_are_filtered_and_ordered(printed: Printed) -> None:
    """The list has the order and the shots that are asked for."""
    assert review("s0", "--approve") == review("s1", "--assign", "Bob") == 0
    assert shown_ids(printed) == ["s0", "s1", "s2", "s3"]
    assert shown_ids(printed, "--order", "risk")[:2] == ["s3", "s2"]
    assert shown_ids(printed, "--review", "approved", "--review", "assigned") == ["s0", "s1"]
    assert shown_ids(printed, "--assignee", "Bob") == ["s1"]
    assert shown_ids(printed, "--state", "failed") == ["s3"]
    assert run(["batch", "shots", "night", "--order", "size"]) == 10
    assert "there are: row, risk, name" in printed()[1]


def test_rejected_shots_begin_anew(store: BatchStore, printed: Printed) -> None:
    """Shots whose present videos are rejected wait again, and no others."""
    assert run(["batch", "retry", "night", "--rejected"]) == 0
    assert "batch night: no shot is rejected" in printed()[0]
    assert review("s0", "--reject") == review("s1", "--reject") == review("s1", "--approve") == 0
    assert run(["batch", "retry", "night", "--rejected"]) == 0
    states = [record.state for record in store.records("night")]
    assert states == [ShotState.WAITING, ShotState.DONE, ShotState.DONE, ShotState.FAILED]
