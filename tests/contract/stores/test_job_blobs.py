"""Counting and deleting of one blob come one after the other, in both databases."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.dub.state import removal
from gateway.dub.state.removal import remove_locked
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.contract.stores.programs import begun
from tests.erasing import erase
from tests.unit.actors.installation import CONSENT, learned

WAITING_S = 0.3

COUNTS = """
import sys
from pathlib import Path
from gateway.actors.store import ActorStore
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactRef

folder, url, uri, sha256, size = Path(sys.argv[1]), *sys.argv[2:6]
settings = GatewaySettings(data_dir=folder / "data", artefacts_url=str(folder / "artefacts"), database_url=url)
with ActorStore(settings) as actors:
    print("begins", flush=True)
    print(actors.jobs.hold(folder / "job", ArtefactRef(uri, sha256, int(size))))
"""
"""A process that counts one blob for the job in the folder `job`, and prints whether the blob is there."""
JOBS = """
import os, sys
from pathlib import Path
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.dub.state.removal import remove_locked
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactStore

folder, url, name, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
settings = GatewaySettings(data_dir=folder / "data", artefacts_url=str(folder / "artefacts"), database_url=url)
store, again = ArtefactStore(settings.artefacts_url), 0
with ActorStore(settings) as actors:
    for number in range(rounds):
        job = folder / "jobs" / f"{name}-{number}"
        job.mkdir(parents=True)
        ledger = JobLedger(actors)
        ledger.begin(job)
        held = []
        for content in (b"bank", b"style", f"window {number % 3}".encode()):
            ref = store.put_bytes(content)
            while not ledger.hold(job, ref):
                again += 1
                ref = store.put_bytes(content)
            held.append(ref)
            lost = [one.sha256 for one in held if not store.exists(one)]
            assert not lost, (name, number, lost)
        remove_locked(job, ledger, store)
print("again", again)
"""
"""A process whose jobs make the blobs of other jobs again and again, and look whether each counted blob is there."""


def test_counting_job_waits_for_deletion(actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
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


def test_job_end_waits_for_counting(actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
    bank = blobs.put_bytes(b"bank")
    for name in ("ending", "other"):
        actors.jobs.begin(tmp_path / name)
    actors.jobs.hold(tmp_path / "ending", bank)
    with actors.jobs.unused([bank], but=tmp_path / "ending") as unused:
        assert list(unused) == [bank]
    actors.jobs.hold(tmp_path / "other", bank)
    with actors.jobs.unused([bank], but=tmp_path / "ending") as unused:
        assert list(unused) == []


def test_job_that_begins_and_ends_beside_another_leaves_no_blob(actors, blobs, tmp_path, monkeypatch) -> None:
    """While a job ends, another job stores the same blob, and ends too: nothing counts the blob, and it is deleted."""

    def job(name: str) -> tuple[Path, JobLedger]:
        folder, ledger = tmp_path / "jobs" / name, JobLedger(actors)
        folder.mkdir(parents=True)
        ledger.begin(folder)
        assert ledger.hold(folder, blobs.put_bytes(b"bank"))
        return folder, ledger

    ending, ledger = job("ending")

    def meanwhile(folder: Path) -> int:
        monkeypatch.undo()
        assert not list(blobs.stored())
        remove_locked(*job("other"), blobs)
        return 0

    # The size of the folder is measured after its blobs are deleted, and before the job is forgotten.
    monkeypatch.setattr(removal, "folder_bytes", meanwhile)
    assert remove_locked(ending, ledger, blobs).blobs == 1
    assert not list(blobs.stored())


def test_other_process_waits_for_erasure(actors, blobs, geometry, settings, tmp_path, monkeypatch) -> None:
    """A job of another process that counts a blob waits for the erasure that deletes it."""
    enrolled = learned(blobs, "ann", geometry)
    actors.create("ann", method="dubstage", enrolled=enrolled, footage_sha256="0" * 64, consent=CONSENT)
    actors.jobs.begin(tmp_path / "job")
    bank = actors.get("ann").artefacts["bank"]
    deletes, goes_on = threading.Event(), threading.Event()
    delete = ArtefactStore.delete

    def slowly(store: ArtefactStore, ref: ArtefactRef) -> bool:
        # The erasure has found that nothing but the person counts the blob, and has not deleted the blob yet.
        deletes.set()
        assert goes_on.wait(60)
        return delete(store, ref)

    monkeypatch.setattr(ArtefactStore, "delete", slowly)
    arguments = (str(tmp_path), settings.database_url, bank.uri, bank.sha256, str(bank.size_bytes))
    with ThreadPoolExecutor(1) as pool:
        erasing = pool.submit(erase, actors, "ann")
        assert deletes.wait(60)
        with begun(COUNTS, *arguments) as counting:
            if settings.database_url:  # SQLite's file has one writer at a time, and opening the file writes
                assert counting.stdout.readline() == "begins\n"
            with pytest.raises(subprocess.TimeoutExpired):
                counting.wait(2.0)
            goes_on.set()
            assert bank.sha256 in erasing.result(timeout=60).erased_sha256
            said = counting.stdout.read().split()
    assert said[-1] == "False", "the job stores the blob again"
    assert not blobs.exists(bank)


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.long), "postgresql"], indirect=True)
def test_concurrent_processes_lose_no_blobs(actors, blobs, settings, tmp_path) -> None:
    """Processes that count and delete the same blobs lose none."""
    place = (str(tmp_path), settings.database_url)
    working = [begun(JOBS, *place, name, "12", stderr=subprocess.PIPE) for name in ("a", "b", "c")]
    for process in working:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert list(blobs.stored()) == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_deletion_blocks_only_its_blob(actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, tmp_path: Path) -> None:
    """The deletion of one blob keeps no job from counting another."""
    bank, style = blobs.put_bytes(b"bank"), blobs.put_bytes(b"style")
    actors.jobs.begin(tmp_path / "job")
    with actors.jobs.unused([bank]), ActorStore(settings) as other:
        other.jobs.hold(tmp_path / "job", style)
