"""A worker whose shot another process has taken over writes nothing any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.batch import worker
from gateway.batch.bench import Bench, open_bench
from gateway.batch.manifest import manifest_of
from gateway.batch.shot_dub import ShotDub
from gateway.batch.store import BatchStore
from gateway.batch.transitions import Made
from gateway.batch.types import Shot, ShotRecord, ShotState
from gateway.batch.worker import run_shot
from gateway.settings import GatewaySettings
from services.common.chassis.settings import load_settings
from services.common.errors import ActorNotReady, BackendUnavailable, Cancelled, DubstageError


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    async with open_bench(settings) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    """A batch of one shot whose footage is no film."""
    (tmp_path / "plate.mp4").write_bytes(b"no film")
    found = BatchStore(str(tmp_path / "batches"))
    shot = Shot(id="a", footage=str(tmp_path / "plate.mp4"), output=str(tmp_path / "film.mp4"))
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


LOST = Cancelled("another gateway has the batch")


async def test_a_shot_that_is_lost_before_it_begins_keeps_the_record_of_the_other(bench: Bench, store: BatchStore) -> None:
    others = ShotRecord(id="a", state=ShotState.RUNNING, attempts=1, worker="other:1")
    store.put("night", others)
    with pytest.raises(Cancelled, match="another gateway"):
        await run_shot(bench, store, "night", 0, confirm=Confirm(LOST))
    assert store.record("night", "a") == others


async def test_a_shot_that_is_lost_while_it_is_dubbed_keeps_the_record_of_the_other(bench: Bench, store: BatchStore) -> None:
    with pytest.raises(Cancelled, match="another gateway"):
        await run_shot(bench, store, "night", 0, confirm=Confirm(None, LOST))
    record = store.record("night", "a")
    assert (record.state, record.attempts, record.error) == (ShotState.RUNNING, 1, "")


@pytest.mark.parametrize(
    "problem", [None, ActorNotReady("actor 'ann' was erased", subject="ann"), BackendUnavailable("the database is away")]
)
async def test_a_picture_stays_only_if_the_person_may_still_be_shown(
    bench: Bench, store: BatchStore, monkeypatch: pytest.MonkeyPatch, problem: DubstageError | None
) -> None:
    monkeypatch.setattr(worker, "_TRIES_S", ())
    made = Made(
        frames=2,
        frames_by_reason={"DUBBED": 2},
        frames_dubbed=2,
        output_sha256="0" * 64,
        method="ugc",
        r_opening=None,
        warnings=(),
        thumbnail=b"picture",
    )

    async def run(_: ShotDub) -> Made:
        return made

    def check(_: ShotDub) -> None:
        assert store.thumbnail("night", "a") == b"picture", "an erasure that begins now finds the picture"
        if problem is not None:
            raise problem

    monkeypatch.setattr(ShotDub, "run", run)
    monkeypatch.setattr(ShotDub, "check", check)
    record = await run_shot(bench, store, "night", 0)
    assert record.state is ShotState.DONE
    assert store.thumbnail("night", "a") == (b"picture" if problem is None else None)


async def test_a_database_that_is_away_for_a_moment_costs_no_attempt(
    bench: Bench, store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_TRIES_S", (0.02,))
    record = await run_shot(bench, store, "night", 0, confirm=Confirm(BackendUnavailable("the database restarts")))
    assert (record.state, record.attempts, record.exit_code) == (ShotState.FAILED, 1, 10)
