"""Erasing a person while work with them runs: in this process, in others, and where a gateway holds the database."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.actors import erasure
from gateway.actors.ledger import JobLedger
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.actors.watch import unless_erased
from gateway.operations.store import OperationStore
from gateway.pipeline.journal import Journal
from gateway.pipeline.workspace import lock_folder
from gateway.settings import GatewaySettings
from services.common.actor_geometry import ActorGeometry
from services.common.artefacts import ArtefactStore
from services.common.errors import ActorNotReady, Cancelled, InvalidRequest, Overloaded
from tests.unit.actors.test_actor_store import CONSENT, blobs, geometry, learned, on_disk, settings, store

__all__ = ["blobs", "geometry", "settings", "store"]


@pytest.fixture
def ann(store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> str:
    store.create("ann", method="ugc", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    return "ann"


@pytest.fixture
def other(settings: GatewaySettings) -> Iterator[ActorStore]:
    """The same installation as another process has it."""
    with ActorStore(settings) as opened:
        yield opened


def window(number: int) -> dict[str, np.ndarray]:
    return {"box": np.full(64, number, np.uint8)}


def test_a_dub_that_writes_one_more_window_after_the_erasure_leaves_no_blob(
    store: ActorStore, other: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, ann: str, tmp_path: Path
) -> None:
    ledger = JobLedger(other, ann)
    folder = tmp_path / "data" / "jobs" / "1"
    ledger.begin(folder)
    journal = Journal(folder / "journal", blobs, lambda ref: ledger.hold(folder, ref))
    journal.record("first", window(1))
    receipt = store.erase(ann)
    with pytest.raises(ActorNotReady, match="'ann' was erased"):
        journal.record("second", window(2))
    with pytest.raises(ActorNotReady, match="'ann' was erased"):
        ledger.check()
    assert on_disk(settings) == set()
    assert len(receipt.erased_sha256) == 5, "four of the actor, one window"
    assert not folder.exists()


def test_a_window_that_another_job_counts_too_is_kept_for_that_one(
    store: ActorStore, other: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, ann: str, tmp_path: Path
) -> None:
    mine, theirs = JobLedger(other, ann), JobLedger(other)
    mine.begin(tmp_path / "mine")
    theirs.begin(tmp_path / "theirs")
    shared = blobs.put_bytes(b"a window that shows nobody")
    theirs.hold(tmp_path / "theirs", shared)
    store.erase(ann)
    with pytest.raises(ActorNotReady):
        mine.hold(tmp_path / "mine", shared)
    assert on_disk(settings) == {shared.sha256}


def test_a_job_that_was_given_up_counts_nothing_any_more(store: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
    ledger = JobLedger(store)
    ledger.begin(tmp_path / "job")
    ledger.release(tmp_path / "job", [])
    late = blobs.put_bytes(b"a thread that was not told")
    with pytest.raises(Cancelled):
        ledger.hold(tmp_path / "job", late)
    assert not blobs.exists(late)


def test_while_an_erasure_is_open_no_work_with_the_person_begins_and_none_goes_on(
    store: ActorStore, ann: str, tmp_path: Path, blobs: ArtefactStore
) -> None:
    running = JobLedger(store, ann)
    running.begin(tmp_path / "running")
    number = store.erasures.ask(ann)
    for work in (
        lambda: JobLedger(store, ann).begin(tmp_path / "next"),
        running.check,
        lambda: running.hold(tmp_path / "running", blobs.put_bytes(b"window")),
        lambda: store.erasures.check(ann),
    ):
        with pytest.raises(ActorNotReady):
            work()
    store.erasures.withdraw(number)
    running.check()


def test_an_erasure_waits_for_the_jobs_of_other_processes(store: ActorStore, ann: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "jobs" / "1"
    JobLedger(store, ann).begin(folder)
    handle = lock_folder(folder)
    ended = time.monotonic() + 0.4

    def end() -> None:
        time.sleep(max(0.0, ended - time.monotonic()))
        os.close(handle)

    thread = threading.Thread(target=end)
    thread.start()
    store.erase(ann)
    assert time.monotonic() >= ended
    assert not folder.exists()
    thread.join()


def test_a_job_that_never_notices_is_not_waited_for_without_end(
    store: ActorStore, ann: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "jobs" / "1"
    JobLedger(store, ann).begin(folder)
    handle = lock_folder(folder)
    (folder / "faces.bin").write_bytes(b"face")
    number = store.erasures.ask(ann)
    store.erasures.carry_out(ann, jobs_s=0.2)
    assert store.erasures.answer(number) is not None
    assert not folder.exists()
    os.close(handle)


def test_operations_that_name_the_person_are_forgotten_with_them(store: ActorStore, ann: str) -> None:
    operations = OperationStore(store.database)
    mine = [operations.add("actor", b"consent of ann", actor_id=ann), operations.add("dub", b"dub", actor_id=ann)]
    operations.finish(mine[0])
    others = operations.add("dub", b"dub", actor_id="bob")
    store.erasures.erase_or_ask(ann)
    assert [record.name for record in operations.list()] == [others.name]


def test_a_person_whose_enrolment_failed_is_erased_from_the_operations(store: ActorStore) -> None:
    operations = OperationStore(store.database)
    operations.finish(operations.add("actor", b"consent of cleo", actor_id="cleo"))
    assert store.erasures.erase_or_ask("cleo").erased_sha256 == ()
    assert operations.list() == []
    with pytest.raises(ActorNotReady, match="no actor 'cleo'"):
        store.erasures.erase_or_ask("cleo")


def test_what_a_killed_enrolment_left_goes_with_the_person(
    store: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "jobs" / "1"
    folder.mkdir(parents=True)
    ledger = JobLedger(store, belongs_to="actors/cleo")
    ledger.begin(folder)
    ledger.hold(folder, blobs.put_bytes(b"style of cleo"))
    assert len(store.erasures.erase_or_ask("cleo").erased_sha256) == 1
    assert on_disk(settings) == set()
    assert not folder.exists()


def test_where_a_gateway_holds_the_database_it_is_the_gateway_that_erases(store: ActorStore, other: ActorStore, ann: str) -> None:
    store.database.claim()
    asked: list[ErasureReceipt] = []
    asking = threading.Thread(target=lambda: asked.append(other.erasures.erase_or_ask(ann)))
    asking.start()
    deadline = time.monotonic() + 10
    while not (found := store.erasures.open()) and time.monotonic() < deadline:
        time.sleep(0.01)
    ((_, actor_id),) = found
    assert store.find(ann) is not None, "the process that asks erases nothing itself"
    receipt = store.erasures.carry_out(actor_id)
    asking.join(timeout=10)
    assert asked == [receipt]
    assert store.erasures.open() == []


def test_a_gateway_that_cannot_erase_says_why(store: ActorStore, other: ActorStore, ann: str) -> None:
    store.database.claim()
    caught: list[Exception] = []

    def ask() -> None:
        try:
            other.erasures.erase_or_ask(ann)
        except Overloaded as problem:
            caught.append(problem)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 10
    while not (found := store.erasures.open()) and time.monotonic() < deadline:
        time.sleep(0.01)
    store.erasures.fail(found[0][0], Overloaded("work on ann has not stopped yet", retry_after_s=5.0))
    asking.join(timeout=10)
    assert [str(problem) for problem in caught] == ["work on ann has not stopped yet"]
    assert store.find(ann) is not None


def test_where_the_gateway_ends_meanwhile_the_process_that_asked_erases(
    store: ActorStore, other: ActorStore, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_CLAIM_EVERY_S", 0.1)
    store.database.claim()
    asking = threading.Thread(target=lambda: other.erasures.erase_or_ask(ann))
    asking.start()
    time.sleep(0.3)
    assert store.find(ann) is not None
    store.database.release_claim()
    asking.join(timeout=10)
    assert store.find(ann) is None


def test_an_erasure_that_was_interrupted_is_finished_by_the_next_process(store: ActorStore, other: ActorStore, ann: str) -> None:
    store.erasures.ask(ann)  # and then killed
    ((_, actor_id),) = other.erasures.open()
    other.erasures.carry_out(actor_id)
    assert other.erasures.open() == []
    assert store.find(ann) is None


def test_one_gateway_at_a_time_holds_a_database(store: ActorStore, other: ActorStore) -> None:
    store.database.claim()
    with pytest.raises(InvalidRequest, match="another gateway works with the database"):
        other.database.claim()
    store.database.close()
    other.database.claim()


async def test_work_ends_with_the_actor_it_is_done_with() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def check() -> None:
        raise ActorNotReady("actor 'ann' was erased", subject="ann")

    with pytest.raises(ActorNotReady):
        await unless_erased(check, work(), every_s=0.01)
    assert ended.is_set()


async def test_work_that_ends_by_itself_gives_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0.05)
        return 7

    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    assert await unless_erased(look, work(), every_s=0.01) == 7
    assert looks
