"""Files of failed and interrupted jobs are found and removed with their blobs. Running jobs and shared blobs stay."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway import housekeeping
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.dub.state.journal import Journal
from gateway.dub.state.removal import RemovalReport, remove_job
from gateway.dub.state.workspace import Workspace, describe_job, is_running, lock_folder
from gateway.housekeeping import (
    JobFolder,
    JobLimits,
    bound_analyses,
    expire,
    find_job,
    list_jobs,
    open_jobs_folder,
    over_total,
    remove_jobs,
    uncounted_blobs,
)
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError, StorageRefusedError
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.unit.actors.installation import actors, blobs, database_url, settings

__all__ = ["actors", "blobs", "database_url", "settings"]

DAY_S = 86400


@pytest.fixture
def jobs(settings: GatewaySettings) -> Path:
    return open_jobs_folder(settings.data_dir)


def interrupted(jobs: Path, number: int, blobs: ArtefactStore, *, days: float = 0.0, record_bytes: int = 0) -> Path:
    """A job that was killed after one window, so many days ago."""
    folder = jobs / f"{number:032x}"
    with Workspace(folder) as workspace:
        workspace.describe({"kind": "dub", "footage": f"[red]{number}.mp4", "actor": ""})
        Journal(folder / "journal", blobs).record("window", {"box": np.full(100, number & 0xFF, np.uint8)})
    (folder / "faces.bin").write_bytes(bytes(record_bytes))
    then = time.time() - days * DAY_S
    for part in (folder / "journal", folder / "job.json", folder):
        os.utime(part, (then, then))
    return folder


def path_of(ref: ArtefactRef) -> Path:
    return Path(ref.uri.removeprefix("file://"))


def keys(found: list[JobFolder]) -> list[int]:
    return [int(job.key, 16) for job in found]


def test_jobs_are_listed_with_what_they_wrote_down(jobs: Path, blobs: ArtefactStore) -> None:
    interrupted(jobs, 1, blobs, days=1)
    interrupted(jobs, 2, blobs, days=3, record_bytes=5000)
    (jobs / "notes.txt").write_text("no job")
    (jobs / "not-a-job").mkdir()
    (jobs / f"{9:032x}").symlink_to(jobs)
    older, newer = list_jobs(jobs)
    assert keys([older, newer]) == [2, 1]
    assert older.fact("footage") == "[red]2.mp4"
    assert older.fact("actor") == older.fact("nothing") == ""
    assert 5000 < older.folder_bytes < 8000
    assert len(older.steps) == 1
    assert older.step_bytes > 100
    assert not older.running
    assert 2.9 * DAY_S < time.time() - older.last_used < 3.1 * DAY_S


def test_damaged_folder_is_listed(jobs: Path) -> None:
    """A folder with damaged notes is listed too."""
    folder = jobs / f"{5:032x}"
    (folder / "journal").mkdir(parents=True)
    (folder / "job.json").write_text("{")
    (folder / "journal" / "k").write_text("[]")
    (job,) = list_jobs(jobs)
    assert (dict(job.facts), job.steps) == ({}, ())


def test_job_found_by_key_prefix(jobs: Path, blobs: ArtefactStore) -> None:
    """A job is found by the beginning of its key."""
    interrupted(jobs, 0xA << 124, blobs)
    interrupted(jobs, 0xAB << 120, blobs)
    assert find_job(jobs, "ab").key.startswith("ab0")
    for key in ("a", "c", "", "../jobs"):
        with pytest.raises(InvalidRequestError, match="jobs list"):
            find_job(jobs, key)


def test_look_does_not_recreate_folder(jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """Looking at a job that has just ended does not bring its folder back."""
    folder = jobs / f"{4:032x}"
    with pytest.raises(FileNotFoundError):
        lock_folder(folder, make=False)
    assert remove_job(folder, JobLedger(actors), blobs) is None
    assert not folder.exists()


def test_where_no_job_ever_ran_there_is_none(tmp_path: Path) -> None:
    assert list_jobs(tmp_path / "nothing") == []


def test_file_as_data_folder(tmp_path: Path) -> None:
    """A data folder that is a file is named with the setting."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        StorageRefusedError, match=r"the data folder .*/file cannot be used: Not a directory: set DUBSTAGE_DATA_DIR"
    ):
        list_jobs(tmp_path / "file" / "jobs")


def test_too_long_data_folder_name(tmp_path: Path) -> None:
    """A data folder with a name that is too long is named with the setting."""
    with pytest.raises(StorageRefusedError, match="File name too long: set DUBSTAGE_DATA_DIR"):
        open_jobs_folder(tmp_path / ("x" * 300))


def test_a_removed_job_leaves_neither_folder_nor_blobs(jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    folder = interrupted(jobs, 1, blobs, record_bytes=1000)
    ledger = JobLedger(actors)
    ledger.begin(folder)
    held = blobs.put_bytes(b"a bank that was made in passing")
    ledger.hold(folder, held)
    (window,) = list_jobs(jobs)[0].steps
    ((_, freed),) = remove_jobs(list_jobs(jobs), actors, blobs)
    assert freed == RemovalReport(freed.folder_bytes if freed else 0, 2, window.size_bytes + held.size_bytes)
    assert not folder.exists()
    assert not path_of(window).exists()
    assert not path_of(held).exists()


def test_blobs_that_somebody_else_counts_stay(jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    folder = interrupted(jobs, 1, blobs)
    (window,) = list_jobs(jobs)[0].steps
    other = JobLedger(actors)
    other.begin(jobs / "another")
    other.hold(jobs / "another", window)
    list(remove_jobs(list_jobs(jobs), actors, blobs))
    assert not folder.exists()
    assert path_of(window).exists()


def test_a_running_job_stays(jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    folder = interrupted(jobs, 1, blobs, days=100)
    before = list_jobs(jobs)
    with Workspace(folder):
        (job,) = list_jobs(jobs)
        assert job.running
        assert is_running(folder)
        assert not JobLimits().meets(job, time.time())
        # It began to run after it was chosen.
        assert [freed for _, freed in remove_jobs(before, actors, blobs)] == [None]
        assert over_total([job], 0) == []
    assert folder.is_dir()
    assert not is_running(folder)


def test_other_store_blob_keeps_nothing(jobs: Path, blobs: ArtefactStore, actors: ActorStore, tmp_path: Path) -> None:
    """A blob of another store does not keep a job from being removed."""
    folder = interrupted(jobs, 1, ArtefactStore(tmp_path / "elsewhere"))
    ((_, freed),) = remove_jobs(list_jobs(jobs), actors, blobs)
    assert freed is not None
    assert freed.blobs == 0
    assert not folder.exists()


def test_jobs_are_chosen_by_age_and_size(jobs: Path, blobs: ArtefactStore) -> None:
    for number, days, size in ((1, 40, 0), (2, 10, 90_000), (3, 1, 50_000)):
        interrupted(jobs, number, blobs, days=days, record_bytes=size)
    found, now = list_jobs(jobs), time.time()

    def chosen(limits: JobLimits) -> list[int]:
        return keys([job for job in found if limits.meets(job, now)])

    assert chosen(JobLimits()) == [1, 2, 3]
    assert chosen(JobLimits(older_than_s=7 * DAY_S)) == [1, 2]
    assert chosen(JobLimits(larger_than=30_000)) == [2, 3]
    assert chosen(JobLimits(older_than_s=7 * DAY_S, larger_than=30_000)) == [2]
    assert keys(over_total(found, 1 << 30)) == []
    assert keys(over_total(found, 60_000)) == [1, 2]
    assert keys(over_total(found, 0)) == [1, 2, 3]


def test_old_and_excess_jobs_expire(settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """Old jobs expire and the oldest go where all are too large."""
    for number, days in ((1, 40), (2, 10), (3, 1)):
        interrupted(jobs, number, blobs, days=days, record_bytes=50_000)
    assert expire(settings, actors, blobs, jobs).folder_bytes > 50_000
    assert keys(list_jobs(jobs)) == [2, 3]
    expire(settings.model_copy(update={"job_max_age_days": 0.0}), actors, blobs, jobs)
    assert keys(list_jobs(jobs)) == [2, 3]
    expire(settings.model_copy(update={"jobs_max_bytes": 60_000}), actors, blobs, jobs)
    assert keys(list_jobs(jobs)) == [3]


def test_old_speech_expires(settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """Speech of a command goes at the age of jobs."""
    folder = settings.data_dir / "speech"
    folder.mkdir()
    for name, days in (("old.wav", 40), ("young.wav", 10)):
        (folder / name).write_bytes(b"RIFF")
        os.utime(folder / name, (time.time() - days * DAY_S,) * 2)
    expire(settings.model_copy(update={"job_max_age_days": 0.0}), actors, blobs, jobs)
    assert len(os.listdir(folder)) == 2
    expire(settings, actors, blobs, jobs)
    assert os.listdir(folder) == ["young.wav"]


def test_unused_analysis_expires_first(settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """A kept analysis goes after a day without a dub of the footage. An interrupted job of the same age stays."""
    for number, days in ((1, 2.0), (2, 2.0), (3, 0.5)):
        folder = interrupted(jobs, number, blobs)
        if number != 1:
            describe_job(folder, {"kind": "analysis"})
        for part in (folder / "journal", folder / "job.json", folder):
            os.utime(part, (time.time() - days * DAY_S,) * 2)
    expire(settings.model_copy(update={"analysis_max_age_days": 1.0}), actors, blobs, jobs)
    assert sorted(keys(list_jobs(jobs))) == [1, 3]


def test_analyses_are_bounded(jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """Kept analyses that were unused longest are removed first. Interrupted jobs do not count."""
    for number, days in ((1, 3), (2, 2), (3, 1)):
        folder = interrupted(jobs, number, blobs, record_bytes=50_000)
        if number != 1:
            describe_job(folder, {"kind": "analysis"})
        for part in (folder / "journal", folder / "job.json", folder):
            os.utime(part, (time.time() - days * DAY_S,) * 2)
    bound_analyses(jobs, 80_000, actors, blobs)
    assert keys(list_jobs(jobs)) == [1, 3]


def _unreadable(folder: Path) -> None:
    (folder / "journal" / "loop").symlink_to("loop")


def _without_a_lock(folder: Path) -> None:
    (folder / "lock").unlink()
    (folder / "lock").mkdir()


def _damaged_digest(folder: Path) -> None:
    """Flip one bit of a digest: the letter is no hexadecimal digit any more."""
    entry = folder / "journal" / "window"
    found = json.loads(entry.read_text())
    entry.write_text(json.dumps({**found, "sha256": chr(ord(found["sha256"][0]) ^ 0x10) + found["sha256"][1:]}))


@pytest.mark.parametrize(("spoil", "left"), [(_unreadable, [1]), (_without_a_lock, [1]), (_damaged_digest, [])])
def test_unusable_job_keeps_no_other(
    spoil: Callable[[Path], None], left: list[int], settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore
) -> None:
    """A job that cannot be used keeps no other job."""
    spoiled, _ = (interrupted(jobs, number, blobs, days=40) for number in (1, 2))
    spoil(spoiled)
    for part in (spoiled / "journal", spoiled):
        os.utime(part, (0, 0))
    told: list[str] = []
    assert 2 in keys(list_jobs(jobs, lambda problem: told.append(problem.subject)))
    assert told == [str(spoiled)] * len(left)
    expire(settings, actors, blobs, jobs)
    assert [int(folder.name, 16) for folder in jobs.iterdir()] == left
    if left:
        # Blobs of a journal that cannot be read stay: another job may need them.
        with pytest.raises(StorageRefusedError, match="cannot be read"):
            list(uncounted_blobs(jobs, actors, blobs, older_than_s=DAY_S))


async def test_gateway_expires_jobs_itself(
    settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway expires jobs by itself and goes on where the store fails."""
    monkeypatch.setattr(housekeeping, "HOUR_S", 0.01)
    folder = interrupted(jobs, 1, blobs)
    ledger = JobLedger(actors)
    ledger.begin(folder)
    held = blobs.put_bytes(b"a bank that was made in passing")
    ledger.hold(folder, held)
    for part in (folder / "journal", folder / "job.json", folder):
        os.utime(part, (0, 0))
    deleted = asyncio.Event()
    failures: list[Exception] = [
        StorageRefusedError("the store refuses", subject="x"),
        OSError("the disk fails"),
        ValueError("a bug"),
    ]
    delete, loop = blobs.delete, asyncio.get_running_loop()

    def failing(ref: ArtefactRef) -> bool:
        if ref == held and failures:
            raise failures.pop()
        if ref == held:
            loop.call_soon_threadsafe(deleted.set)
        return delete(ref)

    monkeypatch.setattr(blobs, "delete", failing)
    task = asyncio.create_task(housekeeping.run_hourly(functools.partial(expire, settings, actors, blobs, jobs)))
    async with asyncio.timeout(60):
        await deleted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not failures
    assert (list_jobs(jobs), blobs.exists(held)) == ([], False)


def test_only_old_blobs_that_nobody_counts_are_swept(
    settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore
) -> None:
    interrupted(jobs, 1, blobs)
    (window,) = list_jobs(jobs)[0].steps
    ledger = JobLedger(actors)
    ledger.begin(jobs / "another")
    held, young, old = (blobs.put_bytes(text) for text in (b"held", b"young", b"made by another service"))
    ledger.hold(jobs / "another", held)
    then = time.time() - 40 * DAY_S
    for ref in (window, held, old):
        os.utime(path_of(ref), (then, then))
    assert [blob.ref for blob in uncounted_blobs(jobs, actors, blobs, older_than_s=30 * DAY_S)] == [old]
    assert list(uncounted_blobs(jobs, actors, blobs, older_than_s=50 * DAY_S)) == []
    # However young they are asked for: a day is the least.
    assert young not in [blob.ref for blob in uncounted_blobs(jobs, actors, blobs, older_than_s=0)]


def test_partial_blobs_go_after_day(settings: GatewaySettings, jobs: Path, blobs: ArtefactStore, actors: ActorStore) -> None:
    """Blobs that were half written into the store go after a day."""
    ref = blobs.put_bytes(b"whole")
    old, young = (path_of(ref).with_name(f".partial-{name}") for name in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    expire(settings, actors, blobs, jobs)
    assert (old.exists(), young.exists(), path_of(ref).exists()) == (False, True, True)


@pytest.mark.parametrize("place", ["file", "file-in-it", "/dev/null", "/proc/dubstage"])
def test_unusable_data_folder_names_setting(place: str, tmp_path: Path) -> None:
    """A data folder that cannot be used is named with its setting."""
    folder = Path(place) if place.startswith("/") else tmp_path / "data"
    if place == "file":
        folder.write_text("a file")
    if place == "file-in-it":
        folder.mkdir()
        (folder / "jobs").write_text("a file")
    with pytest.raises(StorageRefusedError, match="DUBSTAGE_DATA_DIR") as caught:
        open_jobs_folder(folder)
    assert str(folder) in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_data_folder_names_setting(tmp_path: Path) -> None:
    """A data folder that may not be written is named with its setting."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    with pytest.raises(StorageRefusedError, match="DUBSTAGE_DATA_DIR"):
        open_jobs_folder(folder)
