"""No worker writes over the result of another worker of the same shot."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.batch import leases, worker
from gateway.batch.leases import Lease
from gateway.batch.records import VideoMetrics
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, MAX_ATTEMPTS, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.batch.worker import ShotCancelledError, ShotDub, WorkerContext, open_worker_context, run_shot
from gateway.settings import GatewaySettings
from services.common.errors import (
    ActorNotReadyError,
    BackendUnavailableError,
    DubstageError,
    WorkCancelledError,
)
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row

VIDEO = b"video"
MADE = VideoMetrics(
    frames=2,
    frames_by_reason={"DUBBED": 2},
    frames_dubbed=2,
    output_sha256=hashlib.sha256(VIDEO).hexdigest(),
    method="dubstage",
    r_opening=None,
    warnings=(),
    thumbnail=b"",
)
DONE = ShotRecord(id="a", state=ShotState.DONE, attempts=1, worker="other:1", begun_at="2026-11-21T20:00:00.000Z", exit_code=0)
LOST = WorkCancelledError("another gateway has the batch")
OTHERS = [
    DONE,
    DONE.model_copy(update={"state": ShotState.RUNNING, "attempts": 2, "exit_code": None}),
    ShotRecord(id="a"),
    DONE.model_copy(update={"state": ShotState.FAILED, "exit_code": 11, "error": "no actor"}),
]
"""Records that somebody else may store while an attempt goes on: another machine, or a person who resets the shot."""


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[WorkerContext]:
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    async with open_worker_context(settings) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    """A batch of one shot whose footage is no video."""
    (tmp_path / "plate.mp4").write_bytes(b"no video")
    found = open_store(tmp_path)
    shot = shot_of_row(id="a", footage=str(tmp_path / "plate.mp4"), output=str(tmp_path / "video.mp4"))
    found.create(manifest_of("night", [shot]), "gateway")
    return found


class Confirm:
    """Answers a worker: the errors of the calls, in their order; None: the shot is still the worker's."""

    def __init__(self, *answers: DubstageError | None) -> None:
        self.answers = list(answers)

    def __call__(self) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Dubs:
    """Dubs of the workers of a test, which end when the test says."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.problem: DubstageError | None = None

    async def run(self, video: Path) -> VideoMetrics:
        self.begun += 1
        await self.go_on.wait()
        if self.problem is not None:
            raise self.problem
        video.write_bytes(VIDEO)
        return MADE


@pytest.fixture
async def dubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dubs:
    found = Dubs()

    async def run(_: ShotDub) -> VideoMetrics:
        return await found.run(tmp_path / "video.mp4")

    monkeypatch.setattr(ShotDub, "run", run)
    monkeypatch.setattr(leases, "WAIT_S", 0.02)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.01)


async def test_lost_shot_before_start(context: WorkerContext, store: BatchStore) -> None:
    """A shot that is lost before it begins keeps the record of the other."""
    others = ShotRecord(id="a", state=ShotState.RUNNING, attempts=1, worker="other:1")
    store.put("night", others)
    with pytest.raises(WorkCancelledError, match="another gateway"):
        await run_shot(context, store, "night", 0, confirm=Confirm(LOST))
    assert store.record("night", "a") == others


async def test_lost_shot_while_dubbing(context: WorkerContext, store: BatchStore) -> None:
    """A shot that is lost while it is dubbed keeps the record of the other."""
    with pytest.raises(WorkCancelledError, match="another gateway"):
        await run_shot(context, store, "night", 0, confirm=Confirm(None, LOST))
    record = store.record("night", "a")
    assert (record.state, record.attempts, record.error) == (ShotState.RUNNING, 1, "")


@pytest.mark.parametrize(
    "problem", [None, ActorNotReadyError("actor 'ann' was erased", subject="ann"), BackendUnavailableError("the database is away")]
)
async def test_thumbnail_needs_valid_consent(
    context: WorkerContext, store: BatchStore, monkeypatch: pytest.MonkeyPatch, problem: DubstageError | None
) -> None:
    """A picture stays only if the person may still be shown."""
    monkeypatch.setattr(worker, "_TRIES_S", ())
    made = replace(MADE, thumbnail=b"picture")

    async def run(_: ShotDub) -> VideoMetrics:
        return made

    def check(_: ShotDub) -> None:
        assert store.thumbnail("night", "a") == b"picture", "an erasure that begins now finds the picture"
        if problem is not None:
            raise problem

    monkeypatch.setattr(ShotDub, "run", run)
    monkeypatch.setattr(ShotDub, "check", check)
    record = await run_shot(context, store, "night", 0)
    assert record.state is ShotState.DONE
    assert store.thumbnail("night", "a") == (b"picture" if problem is None else None)


async def test_worker_dubs_with_changed_options(context: WorkerContext, store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that change between a worker's look at the shot and its begin hold, and the record has them."""
    dubbed: list[ShotSpec] = []
    record = store.record

    def changed_meanwhile(name: str, shot_id: str) -> ShotRecord:
        found = record(name, shot_id)
        if not dubbed:
            store.set_options(name, shot_id, ShotOptions(expressiveness=1.2))
        return found

    async def run(dub: ShotDub) -> VideoMetrics:
        dubbed.append(dub._shot)
        return MADE

    monkeypatch.setattr(store, "record", changed_meanwhile)
    monkeypatch.setattr(ShotDub, "run", run)
    done = await run_shot(context, store, "night", 0)
    assert [shot.dub.expressiveness for shot in dubbed] == [1.2]
    assert (done.options, BatchStore(store.database).record("night", "a").options) == (
        {"expressiveness": 1.2},
        {"expressiveness": 1.2},
    )


async def test_database_outage_costs_no_attempt(context: WorkerContext, store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away for a moment costs no attempt."""
    monkeypatch.setattr(worker, "_TRIES_S", (0.02,))
    record = await run_shot(context, store, "night", 0, confirm=Confirm(BackendUnavailableError("the database restarts")))
    assert (record.state, record.attempts, record.exit_code) == (ShotState.FAILED, 1, 10)


@pytest.mark.parametrize("others", OTHERS, ids=lambda record: record.state)
async def test_stopped_worker_keeps_others_record(
    context: WorkerContext, store: BatchStore, dubs: Dubs, others: ShotRecord
) -> None:
    """A worker that is told to end leaves the record of another."""
    attempt = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    store.put("night", others)
    attempt.cancel()
    await asyncio.wait([attempt])
    assert attempt.cancelled()
    assert store.record("night", "a") == others


@pytest.mark.parametrize("others", OTHERS, ids=lambda record: record.state)
@pytest.mark.parametrize(
    "problem", [ActorNotReadyError("no actor 'ann'"), ShotCancelledError("cancelled")], ids=["failed", "cancelled"]
)
async def test_failing_worker_keeps_others_record(
    context: WorkerContext, store: BatchStore, dubs: Dubs, others: ShotRecord, problem: DubstageError
) -> None:
    """A worker whose attempt fails leaves the record of another."""
    dubs.problem = problem
    attempt = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    store.put("night", others)
    dubs.go_on.set()
    told = await attempt
    assert store.record("night", "a") == others
    if others.state in ENDED:
        assert told == others, "the exit code is that of the shot"
    else:
        assert told.state is (ShotState.CANCELLED if isinstance(problem, ShotCancelledError) else ShotState.FAILED)


async def test_finished_video_wins_over_restart(context: WorkerContext, store: BatchStore, dubs: Dubs) -> None:
    """A worker whose video is written says so, whichever worker has begun the shot meanwhile."""
    attempt = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    store.put("night", OTHERS[1])
    dubs.go_on.set()
    assert (await attempt).state is ShotState.DONE
    assert store.record("night", "a") == await attempt


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Holders that asked for a lease in vain."""
    found: list[str] = []
    take = Lease.take

    def noted(lease: Lease) -> bool:
        taken = take(lease)
        if not taken:
            found.append(lease.holder)
        return taken

    monkeypatch.setattr(Lease, "take", noted)
    return found


async def test_second_worker_waits(context: WorkerContext, store: BatchStore, dubs: Dubs, refused: list[str]) -> None:
    """A second worker waits and does not dub again."""
    first = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    second = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: bool(refused) or dubs.begun == 2)
    dubs.go_on.set()
    assert await second == await first == store.record("night", "a")
    assert ((await first).state, (await first).attempts, dubs.begun) == (ShotState.DONE, 1, 1)


async def test_stopped_waiting_worker_changes_nothing(
    context: WorkerContext, store: BatchStore, dubs: Dubs, refused: list[str]
) -> None:
    """A second worker that is told to end while it waits changes nothing."""
    first = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    before = store.record("night", "a")
    second = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: bool(refused) or dubs.begun == 2)
    second.cancel()
    await asyncio.wait([second])
    assert store.record("night", "a") == before
    dubs.go_on.set()
    assert (await first).state is ShotState.DONE


async def test_last_attempt_is_not_dead(context: WorkerContext, store: BatchStore, dubs: Dubs, refused: list[str]) -> None:
    """A live worker in its last attempt is not taken for dead."""
    store.put("night", ShotRecord(id="a", attempts=MAX_ATTEMPTS - 1))
    first = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: dubs.begun == 1)
    second = asyncio.create_task(run_shot(context, store, "night", 0))
    await until(lambda: bool(refused) or second.done())
    dubs.go_on.set()
    assert (await second).state is (await first).state is ShotState.DONE


async def test_stopped_worker_returns_shot(
    context: WorkerContext, store: BatchStore, dubs: Dubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is told to end as it begins puts the shot back."""
    loop, put = asyncio.get_running_loop(), store.put

    def put_while_told_to_end(name: str, record: ShotRecord, **more: Any) -> bool:
        if record.state is ShotState.RUNNING:
            told = threading.Event()
            loop.call_soon_threadsafe(attempt.cancel)
            loop.call_soon_threadsafe(told.set)
            assert told.wait(60)
        return put(name, record, **more)

    monkeypatch.setattr(store, "put", put_while_told_to_end)
    attempt = asyncio.create_task(run_shot(context, store, "night", 0))
    await asyncio.wait([attempt])
    assert (attempt.cancelled(), dubs.begun) == (True, 0)
    assert store.record("night", "a") == ShotRecord(id="a", output=store.manifest("night")[0].output)


async def test_cancelled_shot_does_not_begin(context: WorkerContext, store: BatchStore, dubs: Dubs) -> None:
    """A shot that is cancelled after its worker has read it stays cancelled: who watches the batch never sees it run again."""

    def cancelled_meanwhile() -> None:
        store.cancel("night", ["a"])

    record = await run_shot(context, store, "night", 0, confirm=cancelled_meanwhile)
    assert (record.state, dubs.begun) == (ShotState.CANCELLED, 0)
    assert store.record("night", "a") == record


async def test_second_stop_loses_no_record(context: WorkerContext, store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told to end twice while it stores the result of a shot stores all of the result."""
    storing, go_on, put_thumbnail = threading.Event(), threading.Event(), store.put_thumbnail

    async def run(_: ShotDub) -> VideoMetrics:
        return replace(MADE, thumbnail=b"picture")

    def put_slowly(*what: Any) -> None:
        storing.set()
        assert go_on.wait(60)
        put_thumbnail(*what)

    monkeypatch.setattr(ShotDub, "run", run)
    monkeypatch.setattr(store, "put_thumbnail", put_slowly)
    attempt = asyncio.create_task(run_shot(context, store, "night", 0))
    assert await asyncio.to_thread(storing.wait, 60)
    for _ in range(2):
        attempt.cancel()
        await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.wait([attempt])
    assert attempt.cancelled()
    assert (store.record("night", "a").state, store.thumbnail("night", "a")) == (ShotState.DONE, b"picture")
