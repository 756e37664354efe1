"""Blobs that several jobs make: the end of one job deletes nothing that another job uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.dub.state.journal import Journal
from gateway.dub.state.removal import delete_unused, remove_job
from gateway.dub.state.workspace import JOURNAL
from services.common.errors import BackendUnavailableError
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.unit.actors.installation import actors, blobs, database_url, settings

__all__ = ["actors", "blobs", "database_url", "settings"]

BANK = b"bank of the footage that both jobs dub"


class CountedMeanwhile(JobLedger):
    """Ledger of a job that ends while another job of the same footage counts the bank.

    Args:
        actors: store of actors.
        folder: folder of the other job.
    """

    def __init__(self, actors: ActorStore, other: JobLedger, folder: Path, bank: ArtefactRef) -> None:
        super().__init__(actors)
        self._other, self._others_folder, self._bank = other, folder, bank

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        found = super().only_here(folder, refs)
        self._other.hold(self._others_folder, self._bank)
        return found


@pytest.fixture
def ending(actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> Path:
    """Folder of a job that has made the bank and many windows."""
    folder = tmp_path / "data" / "jobs" / "ending"
    ledger = JobLedger(actors)
    ledger.begin(folder)
    ledger.hold(folder, blobs.put_bytes(BANK))
    journal = Journal(folder / JOURNAL, blobs)
    for number in range(25):
        journal.record(f"window{number}", {"box": np.full(8, number, np.uint8)})
    return folder


@pytest.fixture
def other(actors: ActorStore, tmp_path: Path) -> tuple[JobLedger, Path]:
    """A job of the same footage that has begun, and its folder."""
    folder = tmp_path / "data" / "jobs" / "other"
    ledger = JobLedger(actors)
    ledger.begin(folder)
    return ledger, folder


def test_counted_blob_survives_removal(
    actors: ActorStore, blobs: ArtefactStore, ending: Path, other: tuple[JobLedger, Path]
) -> None:
    """A blob that another job counts during the removal stays."""
    bank = blobs.put_bytes(BANK)
    freed = remove_job(ending, CountedMeanwhile(actors, *other, bank), blobs)
    assert freed is not None
    assert freed.blobs == 25
    assert [blob.ref for blob in blobs.stored()] == [bank]


def test_blob_goes_with_last_job(actors: ActorStore, blobs: ArtefactStore, ending: Path, other: tuple[JobLedger, Path]) -> None:
    """A blob goes with the last of the jobs that counted it."""
    ledger, folder = other
    bank = blobs.put_bytes(BANK)
    ledger.hold(folder, bank)
    remove_job(ending, JobLedger(actors), blobs)
    assert blobs.exists(bank)
    assert delete_unused(folder, ledger.release(folder), ledger, blobs) == {bank: True}
    assert not blobs.exists(bank)


def test_deleted_blob_can_be_stored_again(
    actors: ActorStore, blobs: ArtefactStore, ending: Path, other: tuple[JobLedger, Path]
) -> None:
    """A job whose blob was deleted before it was counted may store it again."""
    ledger, folder = other
    bank = blobs.put_bytes(BANK)
    remove_job(ending, JobLedger(actors), blobs)
    assert not ledger.hold(folder, bank)
    assert ledger.hold(folder, blobs.put_bytes(BANK))
    assert actors.jobs.uncounted([bank]) == []


def test_stage_only_store_is_counted(blobs: ArtefactStore, other: tuple[JobLedger, Path], tmp_path: Path) -> None:
    """A blob of a store that only the stages use is counted."""
    ledger, folder = other
    ref = ArtefactStore(tmp_path / "stages").put_bytes(b"style")
    assert ledger.hold(folder, ref)
    assert list(ledger.only_here(folder, [])) == [ref]


def test_deleted_result_is_stored_again(blobs: ArtefactStore, other: tuple[JobLedger, Path]) -> None:
    """A result that the end of another job deletes meanwhile is stored again."""
    ledger, folder = other
    lost: list[ArtefactRef] = []

    def hold(ref: ArtefactRef) -> bool:
        if not lost:
            lost.append(ref)
            blobs.delete(ref)
        return ledger.hold(folder, ref)

    Journal(folder / JOURNAL, blobs, hold).record("window", {"box": np.zeros(8, np.uint8)})
    assert [blob.ref for blob in blobs.stored()] == lost


def test_losing_store_ends_the_job(blobs: ArtefactStore, tmp_path: Path) -> None:
    """A store that loses everything ends the job with an error."""
    journal = Journal(tmp_path / JOURNAL, blobs, lambda _: False)
    with pytest.raises(BackendUnavailableError, match="was gone right after it was stored, 5 times"):
        journal.record("window", {"box": np.zeros(8, np.uint8)})
    assert list(journal.refs()) == []
