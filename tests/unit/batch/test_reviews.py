"""Decisions about shots: checked, ordered, kept, and bound to the video that was looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway.batch.reviews import MOST_NOTE, Decision, Region, ReviewState, Verdict, decision_of, region_from
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.database.tables import BatchDecisionRow
from services.common.errors import BatchNotFoundError, InvalidRequestError, StorageRefusedError
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row

NOW = "2026-01-02T03:04:05.678Z"
DONE = ShotRecord(id="s.1", state=ShotState.DONE, frames=50, output_sha256="ab" * 32, ended_at=NOW)
SHOTS = [shot_of_row(id=name, footage="/plate.mp4", output=f"/out/{name}.mp4") for name in ("s", "s.1", "s.10")]


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    store = open_store(tmp_path)
    store.create(manifest_of("night", SHOTS), "local")
    return store


def decided(record: ShotRecord = DONE, state: ReviewState = ReviewState.APPROVED, **more: Any) -> Decision:
    own = {name: more.pop(name) for name in ("now", "seen_sha256") if name in more}
    return decision_of(record, Verdict(state=state, **more), **{"now": NOW, **own})


def test_the_last_decision_counts_and_all_are_kept(store: BatchStore) -> None:
    made = [store.decide("night", decided(reviewer=name)) for name in ("Ada", "Ben", "Cem")]
    assert [one.number for one in made] == [1, 2, 3]
    assert store.decisions("night", "s.1") == made
    assert store.all_decisions("night") == {"s.1": made}
    assert store.decisions("night", "s") == [], "ids that begin alike are other shots"


def test_decisions_at_once_are_all_kept(store: BatchStore) -> None:
    """Forty people who decide at the same time lose nothing, and all readers agree on the last one."""
    with ThreadPoolExecutor(8) as threads:
        names = [f"p{number}" for number in range(40)]
        list(threads.map(lambda name: store.decide("night", decided(reviewer=name)), names))
    kept = store.decisions("night", "s.1")
    assert sorted(one.reviewer for one in kept) == sorted(names)
    assert [one.number for one in kept] == list(range(1, 41))


def test_a_decision_belongs_to_its_video() -> None:
    """A shot that was dubbed again, or that failed again, is undecided."""
    mine = decided(state=ReviewState.REJECTED)
    assert mine.belongs_to(DONE)
    assert not mine.belongs_to(DONE.model_copy(update={"output_sha256": "cd" * 32}))
    assert not mine.belongs_to(ShotRecord(id="s.1"))
    failed = ShotRecord(id="s.1", state=ShotState.FAILED, ended_at=NOW)
    # Earlier versions stored decisions about shots without a video.
    of_failed = Decision(id="s.1", state=ReviewState.ASSIGNED, assignee="Ada", decided_at=NOW, ended_at=NOW)
    assert of_failed.belongs_to(failed)
    assert not of_failed.belongs_to(failed.model_copy(update={"ended_at": "2026-01-03T00:00:00.000Z"}))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"note": "x" * (MOST_NOTE + 1)}, "note"),
        ({"note": "bell \x07"}, "note"),
        ({"reviewer": "A\nB"}, "reviewer"),
        ({"assignee": "Ada"}, "assignee"),
        ({"state": ReviewState.ASSIGNED}, "assignee"),
        ({"state": ReviewState.UNDECIDED}, "state"),
        ({"frame": 50}, "frame"),
        ({"frame": -1}, "frame"),
        ({"seen_sha256": "cd" * 32}, "output_sha256"),
        ({"record": ShotRecord(id="s.1", state=ShotState.RUNNING)}, "name"),
        ({"record": ShotRecord(id="s.1", state=ShotState.FAILED, ended_at=NOW)}, "name"),
        ({"record": ShotRecord(id="s.1", state=ShotState.CANCELLED, ended_at=NOW), "state": ReviewState.REJECTED}, "name"),
    ],
)
def test_wrong_decisions_are_refused(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decided(**more)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 0.5, 0.5), (0, 0, float("nan"), 1), (0, 0.5, 1, 0.6)]
)
def test_regions_outside_of_the_picture_are_refused(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidRequestError, match="no part of the picture"):
        region_from(*numbers)
    assert region_from(0.1, 0.2, 0.9, 0.8) == Region(x=0.1, y=0.2, width=0.9, height=0.8)


def test_notes_keep_lines_and_markup(store: BatchStore) -> None:
    note = "<b>chin</b>\nslips "
    assert store.decide("night", decided(note=note, frame=0)).note == note.strip()


def test_unknown_shots_and_damaged_rows_say_so(store: BatchStore) -> None:
    with pytest.raises(BatchNotFoundError, match="no shot 'x'"):
        store.decide("night", decided().model_copy(update={"id": "x"}))
    store.decide("night", decided())
    with store.database.writing() as session:
        session.execute(update(BatchDecisionRow).values(document="{"))
    with pytest.raises(StorageRefusedError, match=r"is damaged \(Decision of shot s\.1"):
        store.all_decisions("night")
