"""Counting and deleting of one blob come one after the other, in both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import actors, blobs, settings

__all__ = ["actors", "blobs", "settings"]

WAITING_S = 0.3


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


def test_a_job_that_counts_a_blob_waits_for_the_job_that_deletes_it(
    actors: ActorStore, blobs: ArtefactStore, tmp_path: Path
) -> None:
    bank = blobs.put_bytes(b"bank")
    actors.jobs.begin(tmp_path / "job")
    counted = threading.Event()

    def count() -> bool:
        try:
            return actors.jobs.hold(tmp_path / "job", bank)
        finally:
            counted.set()

    with ThreadPoolExecutor(1) as pool:
        with actors.jobs.unused([bank]) as unused:
            assert list(unused) == [bank]
            counting = pool.submit(count)
            assert not counted.wait(WAITING_S)
            blobs.delete(bank)
        assert not counting.result(timeout=60), "the job stores the blob again"


def test_the_end_of_a_job_waits_for_a_job_that_counts_its_blob(actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
    bank = blobs.put_bytes(b"bank")
    for name in ("ending", "other"):
        actors.jobs.begin(tmp_path / name)
    actors.jobs.hold(tmp_path / "ending", bank)
    with actors.jobs.unused([bank], but=tmp_path / "ending") as unused:
        assert list(unused) == [bank]
    actors.jobs.hold(tmp_path / "other", bank)
    with actors.jobs.unused([bank], but=tmp_path / "ending") as unused:
        assert list(unused) == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_the_deletion_of_one_blob_keeps_no_job_from_counting_another(
    actors: ActorStore, blobs: ArtefactStore, tmp_path: Path
) -> None:
    bank, style = blobs.put_bytes(b"bank"), blobs.put_bytes(b"style")
    actors.jobs.begin(tmp_path / "job")
    with actors.jobs.unused([bank]):
        actors.jobs.hold(tmp_path / "job", style)
