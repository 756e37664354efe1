"""Batches of processes that work at once, in SQLite and in PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.batch.leases import Lease
from gateway.batch.lists import ShotQuery
from gateway.batch.records import begun, done, progress_from
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.database.session import Database
from services.common.errors import InvalidRequestError
from tests.unit.batch.rows import shot_of_row
from tests.unit.batch.test_worker import MADE

SHOTS = [
    shot_of_row(id=f"s{row}", footage=f"/plates/{'long' * 800}.mp4", output=f"/out/{row}.mp4", actor="ann") for row in range(8)
]
NIGHT = manifest_of("night", SHOTS)
TIME = "2026-11-26T10:00:00.000Z"
Open = Callable[[], BatchStore]


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the store as another process does, with connections of its own."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with ExitStack() as stack:

        def open_one() -> BatchStore:
            database = Database(url, tmp_path)
            stack.callback(database.close)
            return BatchStore(database)

        yield open_one


def test_creators_at_once_share_batch(opened: Open) -> None:
    stores = [opened() for _ in range(4)]

    def create(number: int) -> str:
        try:
            return repr(stores[number % 4].create(manifest_of("night", SHOTS[: 3 + number % 2]), "farm"))
        except InvalidRequestError:
            return ""

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(create, range(16)))
    assert sorted(map(bool, made)) == [False] * 8 + [True] * 8
    assert len(stores[0].manifest("night")) == stores[0].facts("night").rows


def test_workers_at_once_have_each_shot_once(opened: Open) -> None:
    """Eight workers that want every shot dub each shot once, and the sums are right."""
    stores = [opened() for _ in range(4)]
    stores[0].create(NIGHT, "farm")
    dubbed: list[str] = []

    def work(number: int) -> None:
        store = stores[number % 4]
        for row, shot in enumerate(SHOTS):
            lease = Lease(store, "night", row)
            if not lease.take():
                continue
            record = store.record("night", shot.id)
            if record.state is ShotState.WAITING:
                record = begun(record, f"worker:{number}", shot.output, TIME)
                assert store.put("night", record, holder=lease.holder)
                dubbed.append(shot.id)
                store.put("night", done(record, MADE, 1.0, TIME))
            lease.release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert sorted(dubbed) == [shot.id for shot in SHOTS]
    progress = progress_from(stores[1].work("night"))
    assert (progress.done, progress.frames) == (8, 16)
    assert [record.attempts for record in stores[2].records("night")] == [1] * 8


def test_decisions_at_once_are_all_kept(opened: Open) -> None:
    stores = [opened() for _ in range(4)]
    stores[0].create(NIGHT, "farm")
    stores[0].put("night", done(ShotRecord(id="s1"), MADE, 1.0, TIME))

    def decide(number: int) -> int:
        said = Decision(
            id="s1", state=ReviewState.APPROVED, decided_at=TIME, reviewer=f"p{number}", output_sha256=MADE.output_sha256
        )
        return stores[number % 4].decide("night", said).number

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(decide, range(24))) == list(range(1, 25))
    assert [one.shot.id for one in stores[1].shots("night", ShotQuery(reviews=[ReviewState.APPROVED]))] == ["s1"]


def test_lists_are_the_same_in_both(opened: Open) -> None:
    store = opened()
    store.create(NIGHT, "farm")
    for row, shot in enumerate(SHOTS[:4]):
        record = done(ShotRecord(id=shot.id), MADE, 1.0, TIME)
        store.put("night", record.model_copy(update={"r_opening": 1.0 - row / 10, "look": ("dark",) if row == 2 else ()}))
    store.cancel("night", ["s7"])
    assert [one.shot.id for one in store.shots("night", ShotQuery(order="risk"), 3)] == ["s2", "s3", "s1"]
    assert [one.row for one in store.shots("night", ShotQuery(order="name", behind=(5, 0)))] == [6, 7]
    assert store.count("night", ShotQuery(states=["cancelled", "look"])) == 2
    assert store.count("night", ShotQuery(assignee="\0")) == 0
    assert store.has_dubbed(SHOTS[0].dub.footage_uri)
    assert store.has_written("/out/3.mp4")
    assert not store.has_written("/out/4.mp4")
    assert store.states()["night"] == {ShotState.DONE: 4, ShotState.WAITING: 3, ShotState.CANCELLED: 1}
    assert store.shots_of_actor("ann") == {"night": [shot.id for shot in SHOTS]}
    assert store.sizes_bytes()["night"] > 8 * 3200
    assert [facts.name for facts in store.ended_before(1e12)] == []
    store.cancel("night")
    assert [facts.name for facts in store.ended_before(1e12)] == ["night"]
    store.reset("night", store.ids("night"))
    assert len(store.left("night")) == 8
    store.remove("night")
    assert store.batches() == []
