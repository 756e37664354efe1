"""Erasing a person while work with them runs: in this process, in others, and where a gateway holds the database."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from gateway.actors import erasure, sweep
from gateway.actors.ledger import JobLedger
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.actors.stored import FILES
from gateway.actors.watch import while_allowed
from gateway.database.tables import JobBlobRow, JobFolderRow, JobRow
from gateway.dub.state.journal import Journal
from gateway.dub.state.scratch import SCRATCH
from gateway.dub.state.workspace import describe_job, lock_folder
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from services.common.errors import (
    ActorError,
    ActorNotReadyError,
    InvalidRequestError,
    OverloadedError,
    StorageRefusedError,
    WorkCancelledError,
)
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.erasing import erase
from tests.operations import submitted
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, on_disk, settings
from tests.unit.consent.records import face, record

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


@pytest.fixture
def ann(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> str:
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    return "ann"


@pytest.fixture
def other(settings: GatewaySettings) -> Iterator[ActorStore]:
    """The same installation as another process has it."""
    with ActorStore(settings) as opened:
        yield opened


def test_an_erasure_removes_the_face_of_the_record(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    consent = record(face=face())
    actors.create("bea", method="dubstage", enrolled=learned(blobs, "bea", geometry), footage_sha256="0" * 64, consent=consent)

    def holders() -> list[str]:
        files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
        return [path.name for path in files if face()["embedding"].encode() in path.read_bytes()]

    assert holders()
    receipt = erase(actors, "bea")
    actors.close()
    assert holders() == []
    assert face()["embedding"] not in receipt.to_json()


def window(number: int) -> dict[str, np.ndarray]:
    return {"box": np.full(64, number, np.uint8)}


def test_lists_of_faces_go(actors: ActorStore, ann: str) -> None:
    """Lists of the faces of the footage go with the person."""
    operations = OperationStore(actors.database)
    lists = [submitted(operations.database, "faces", name.encode()) for name in ("of ann", "of bob", "failed")]
    operations.note_footage(lists[0].name, "0" * 64)
    operations.note_footage(lists[1].name, "1" * 64)
    for one in lists:
        operations.finish(replace(one, **({"error": b""} if one is lists[2] else {"response": b"faces"})))
    erase(actors, ann)
    assert [one.request for one in operations.list()] == [b"of bob", b"failed"]


def test_window_after_erasure_is_removed(
    actors: ActorStore, other: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, ann: str, tmp_path: Path
) -> None:
    """A dub that writes one more window after the erasure leaves no blob."""
    ledger = JobLedger(other, [ann])
    folder = tmp_path / "data" / "jobs" / "1"
    ledger.begin(folder)
    journal = Journal(folder / "journal", blobs, lambda ref: ledger.hold(folder, ref))
    journal.record("first", window(1))
    receipt = erase(actors, ann)
    with pytest.raises(ActorError, match="'ann' was erased"):
        journal.record("second", window(2))
    with pytest.raises(ActorError, match="'ann' was erased"):
        ledger.check()
    assert on_disk(settings) == set()
    kinds = {kind: len(digests) for kind, digests in receipt.document["erased"].items()}
    assert kinds == {"enrolment": 1, "style": 1, "bank": 1, "renderer": 1, "job": 1, "job file": 1}
    assert not folder.exists()


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("erased", ["ann", "bea"])
def test_window_of_scene_names_erased(
    actors: ActorStore,
    blobs: ArtefactStore,
    geometry: ActorGeometry,
    settings: GatewaySettings,
    ann: str,
    erased: str,
    carried_out: bool,
) -> None:
    """A scene ends with the erasure of any of its actors, and the error names this actor."""
    actors.create("bea", method="dubstage", enrolled=learned(blobs, "bea", geometry), footage_sha256="1" * 64, consent=None)
    ledger, folder = JobLedger(actors, [ann, "bea"]), settings.data_dir / "jobs" / "1"
    ledger.begin(folder)
    late = blobs.put_bytes(b"window of both")
    if carried_out:
        actors.erasures.erase_or_ask(erased)
    else:
        actors.erasures.ask(erased)
    with pytest.raises(ActorError, match=f"'{erased}' was erased"):
        ledger.hold(folder, late)
    assert not blobs.exists(late)


def test_erasure_removes_footage_analysis(
    actors: ActorStore,
    other: ActorStore,
    blobs: ArtefactStore,
    settings: GatewaySettings,
    ann: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An erasure deletes the analysis that a dub without the actor has kept of the footage of the enrolment."""
    jobs = tmp_path / "data" / "jobs"
    for name, sha256 in (("1", "0" * 64), ("2", "1" * 64)):
        (jobs / name / "journal").mkdir(parents=True)
        JobLedger(other).keep(jobs / name, sha256)
        Journal(jobs / name / "journal", blobs, partial(JobLedger(other).hold, jobs / name)).record("enrol", window(int(name)))
    asked: list[Path] = []
    monkeypatch.setattr(erasure, "is_running", asked.append)
    erase(actors, ann)
    assert asked == [], "the erasure does not end dubs without the actor, so it does not wait for them"
    assert [folder.name for folder in jobs.iterdir()] == ["2"]
    assert len(on_disk(settings)) == 1


def test_shared_window_is_kept(
    actors: ActorStore, other: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, ann: str, tmp_path: Path
) -> None:
    """A window that another job counts too is kept for that one."""
    mine, theirs = JobLedger(other, [ann]), JobLedger(other)
    mine.begin(tmp_path / "mine")
    theirs.begin(tmp_path / "theirs")
    shared = blobs.put_bytes(b"a window that shows nobody")
    theirs.hold(tmp_path / "theirs", shared)
    erase(actors, ann)
    with pytest.raises(ActorError):
        mine.hold(tmp_path / "mine", shared)
    assert on_disk(settings) == {shared.sha256}


def test_abandoned_job_counts_nothing(actors: ActorStore, blobs: ArtefactStore, tmp_path: Path) -> None:
    """A job that was given up counts nothing any more."""
    ledger = JobLedger(actors)
    ledger.begin(tmp_path / "job")
    ledger.release(tmp_path / "job")
    late = blobs.put_bytes(b"a thread that was not told")
    with pytest.raises(WorkCancelledError):
        ledger.hold(tmp_path / "job", late)
    assert not blobs.exists(late)


def test_erasure_reads_no_blobs_of_other_people(
    settings: GatewaySettings, geometry: ActorGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs of all people have a few sizes. In a store in the data folder, the names of the blobs say what the blobs hold."""
    read: list[Path] = []

    def noted(file: Path) -> str:
        read.append(file)
        return ""

    monkeypatch.setattr(sweep, "digest_of_file", noted)
    inside = settings.model_copy(update={"artefacts_url": str(settings.data_dir / "artefacts")})
    with ActorStore(inside) as actors:
        blobs = ArtefactStore(inside.artefacts_url)
        for name in ("ann", "bob"):
            enrolled = learned(blobs, name, geometry)
            actors.create(name, method="dubstage", enrolled=enrolled, footage_sha256="0" * 64, consent=CONSENT)
        copy = settings.data_dir / "forgotten"
        copy.write_bytes(b"style of ann")
        erase(actors, "ann")
        assert actors.get("bob").enrolled.num_frames == 100
    assert read == [copy], "of the files of an erased size, one is no blob"


def test_open_erasure_blocks_work(actors: ActorStore, ann: str, tmp_path: Path, blobs: ArtefactStore) -> None:
    """While an erasure is open, no work with the person begins and none continues."""
    running = JobLedger(actors, [ann])
    running.begin(tmp_path / "running")
    number = actors.erasures.ask(ann)
    for work in (
        lambda: JobLedger(actors, [ann]).begin(tmp_path / "next"),
        running.check,
        lambda: running.hold(tmp_path / "running", blobs.put_bytes(b"window")),
        lambda: actors.erasures.check(ann),
    ):
        with pytest.raises(ActorError):
            work()
    actors.erasures.withdraw(number)
    running.check()


def test_erasure_waits_for_other_jobs(actors: ActorStore, ann: str, tmp_path: Path) -> None:
    """An erasure waits for the jobs of other processes."""
    folder = tmp_path / "data" / "jobs" / "1"
    JobLedger(actors, [ann]).begin(folder)
    handle = lock_folder(folder)
    ended = time.monotonic() + 0.4

    def end() -> None:
        time.sleep(max(0.0, ended - time.monotonic()))
        os.close(handle)

    thread = threading.Thread(target=end)
    thread.start()
    erase(actors, ann)
    assert time.monotonic() >= ended
    assert not folder.exists()
    thread.join()


def test_erasure_wait_is_bounded(actors: ActorStore, ann: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that never notices is not waited for without end."""
    folder = tmp_path / "data" / "jobs" / "1"
    JobLedger(actors, [ann]).begin(folder)
    handle = lock_folder(folder)
    (folder / "faces.bin").write_bytes(b"face")
    number = actors.erasures.ask(ann)
    monkeypatch.setattr(erasure, "JOB_SECONDS", 0.2)
    actors.erasures.carry_out(ann)
    assert actors.erasures.answer(number) is not None
    assert not folder.exists()
    os.close(handle)


def test_operations_of_person_are_removed(actors: ActorStore, ann: str) -> None:
    """Operations that name the person are forgotten with them."""
    operations = OperationStore(actors.database)
    mine = [
        submitted(operations.database, "actor", b"consent of ann", actor_id=ann),
        submitted(operations.database, "dub", b"dub", actor_id=ann),
    ]
    operations.finish(mine[0])
    others = submitted(operations.database, "dub", b"dub", actor_id="bob")
    actors.erasures.erase_or_ask(ann)
    assert [record.name for record in operations.list()] == [others.name]


@pytest.mark.parametrize("damaged", [False, True])
def test_erasure_removes_analyses_of_files(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path, damaged: bool
) -> None:
    """Dubs have analysed a file of several that the person was enrolled from. A lost list of the files keeps no person."""
    jobs, digests = tmp_path / "data" / "jobs", ["1" * 64, "2" * 64]
    files = blobs.put_bytes(json.dumps(digests).encode())
    person = learned(blobs, "dora", geometry)
    actors.create("dora", method="dubstage", enrolled=person, footage_sha256="3" * 64, consent=None, more={FILES: files})
    for sha256 in ("2" * 64, "3" * 64, "4" * 64):
        (jobs / sha256[:32]).mkdir(parents=True)
        JobLedger(actors).keep(jobs / sha256[:32], sha256)
    if damaged:
        blobs.delete(files)
    receipt = erase(actors, "dora")
    left = {"2" * 32, "4" * 32} if damaged else {"4" * 32}
    assert {folder.name for folder in jobs.iterdir()} == left
    unsearched = [place for place in receipt.document["out_of_reach"] if place.startswith("kept analyses of the single files")]
    assert len(unsearched) == damaged
    assert not blobs.exists(files)


@pytest.mark.parametrize("stays", ["style", "files"])
def test_repeated_erasure_knows_files(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: str
) -> None:
    """The store fails once to delete a blob. A dub keeps an analysis of one of the files before the erasure is repeated."""
    files = blobs.put_bytes(json.dumps(["1" * 64, "2" * 64]).encode())
    person = learned(blobs, "dora", geometry)
    actors.create("dora", method="dubstage", enrolled=person, footage_sha256="3" * 64, consent=None, more={FILES: files})
    failing, delete = [{"style": person.style.sha256, "files": files.sha256}[stays]], ArtefactStore.delete

    def fails_once(self: ArtefactStore, ref: ArtefactRef) -> None:
        if ref.sha256 in failing:
            failing.remove(ref.sha256)
        else:
            delete(self, ref)

    monkeypatch.setattr(ArtefactStore, "delete", fails_once)
    with pytest.raises(StorageRefusedError, match="is not erased whole"):
        erase(actors, "dora")
    analysis = tmp_path / "data" / "jobs" / "1"
    analysis.mkdir(parents=True)
    JobLedger(actors).keep(analysis, "2" * 64)
    receipt = erase(actors, "dora")
    assert not analysis.exists()
    assert files.sha256 in receipt.erased_sha256
    assert not blobs.exists(files)


@pytest.mark.parametrize("erased", ["cleo", "ann"])
def test_analysis_of_killed_enrolment_goes(actors: ActorStore, ann: str, tmp_path: Path, erased: str) -> None:
    """Cleo's enrolment was killed, and has kept an analysis of the footage that Ann was enrolled from too."""
    enrolment, analysis, other = (tmp_path / "data" / "jobs" / name for name in "123")
    for folder in (enrolment, analysis, other):
        folder.mkdir(parents=True)
    ledger = JobLedger(actors, belongs_to="actors/cleo")
    ledger.begin(enrolment)
    describe_job(enrolment, {"kind": "enrol", "files": ["0" * 64]})
    ledger.keep(analysis, "0" * 64)
    ledger.keep(other, "1" * 64)
    actors.erasures.erase_or_ask(erased)
    assert not analysis.exists()
    assert other.exists()
    assert enrolment.exists() is (erased == ann)


def test_failed_enrolment_is_erasable(actors: ActorStore) -> None:
    """A person whose enrolment failed is erased from the operations."""
    operations = OperationStore(actors.database)
    operations.finish(submitted(operations.database, "actor", b"consent of cleo", actor_id="cleo"))
    assert actors.erasures.erase_or_ask("cleo").erased_sha256 == ()
    assert operations.list() == []
    with pytest.raises(ActorError, match="no actor 'cleo'"):
        actors.erasures.erase_or_ask("cleo")


def test_enrolment_of_deleted_operation_goes(
    actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, tmp_path: Path
) -> None:
    """An enrolment failed, and its operation was deleted. The folder and the blobs stay for a repeated enrolment, or an erasure."""
    operations = OperationStore(actors.database)
    record = submitted(operations.database, "actor", b"consent of cleo", actor_id="cleo")
    folder = tmp_path / "data" / "jobs" / "1"
    folder.mkdir(parents=True)
    ledger = JobLedger(actors, belongs_to=record.name)
    ledger.begin(folder)
    ledger.hold(folder, blobs.put_bytes(b"style of cleo"))
    operations.finish(record)
    operations.delete(record.name)
    assert len(actors.erasures.erase_or_ask("cleo").erased_sha256) == 1
    assert on_disk(settings) == set()
    assert not folder.exists()


def test_killed_enrolment_leaves_nothing(
    actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, tmp_path: Path
) -> None:
    """Leftovers of a killed enrolment go with the person."""
    folder = tmp_path / "data" / "jobs" / "1"
    folder.mkdir(parents=True)
    ledger = JobLedger(actors, belongs_to="actors/cleo")
    ledger.begin(folder)
    ledger.hold(folder, blobs.put_bytes(b"style of cleo"))
    assert len(actors.erasures.erase_or_ask("cleo").erased_sha256) == 1
    assert on_disk(settings) == set()
    assert not folder.exists()


@pytest.mark.parametrize("how", ["absolute", "..", "link", "the folder of jobs", "above"])
def test_outside_path_left_and_logged(
    actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, ann: str, tmp_path: Path, how: str
) -> None:
    """A path that the database names outside of the jobs is left alone, logged and reported."""
    others = tmp_path / "photographs"
    (others / "journal").mkdir(parents=True)
    (others / "album.jpg").write_bytes(b"nobody's business")
    jobs, own = settings.data_dir / "jobs", settings.data_dir / "jobs" / "1"
    JobLedger(actors, [ann]).begin(own)
    for folder, content in ((own, b"face"), (jobs / "of bob", b"face of bob")):
        folder.mkdir(parents=True)
        (folder / "faces.bin").write_bytes(content)
    (jobs / "linked").symlink_to(others)
    named = {
        "absolute": str(others),
        "..": f"{jobs}/1/../../../photographs",
        "link": f"{jobs}/linked",
        "the folder of jobs": str(jobs),
        "above": f"{jobs}/..",
    }[how]
    of_blob = blobs.put_bytes(b"window of ann")
    with actors.database.writing() as session:
        session.add(JobRow(actor_id=ann, folder=named))
        session.add(JobFolderRow(folder=named, belongs_to=""))
        session.add(JobBlobRow(folder=named, sha256=of_blob.sha256, uri=of_blob.uri, size_bytes=of_blob.size_bytes))
    with capture_logs() as logged:
        receipt = erase(actors, ann)
    assert sorted(path.name for path in others.iterdir()) == ["album.jpg", "journal"]
    assert (jobs / "of bob" / "faces.bin").exists()
    assert not own.exists()
    assert not blobs.exists(of_blob)
    assert [(line["event"], line["folder"]) for line in logged] == [("folder_outside_of_jobs_kept", named)]
    assert [place for place in receipt.document["out_of_reach"] if place.startswith(f"{named}, which the database names")]
    assert set(receipt.document["erased"]["job file"]) == {hashlib.sha256(b"face").hexdigest()}
    with actors.database.reading() as session:
        assert [session.scalars(select(table)).all() for table in (JobRow, JobFolderRow, JobBlobRow)] == [[], [], []]


@pytest.mark.parametrize("open_still", [True, False])
def test_erased_enrolment_stores_nothing(
    actors: ActorStore, other: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path, open_still: bool
) -> None:
    """An enrolment that an erasure has ended stores no actor."""
    folder = tmp_path / "data" / "jobs" / "1"
    JobLedger(other, belongs_to="actors/ann").begin(folder)
    if open_still:
        actors.erasures.ask("ann")
    else:
        erase(actors, "ann")
    with pytest.raises(ActorError, match="'ann' was erased"):
        other.create(
            "ann",
            method="dubstage",
            enrolled=learned(blobs, "ann", geometry),
            footage_sha256="0" * 64,
            consent=CONSENT,
            folder=folder,
        )
    assert actors.find("ann") is None


def test_leftover_media_copies_removed(actors: ActorStore, settings: GatewaySettings, ann: str) -> None:
    """Copies of media that a killed process left go with any erasure."""
    left, held = (settings.data_dir / SCRATCH / name for name in ("7-dead", "8-alive"))
    for folder in (left, held):
        folder.mkdir(parents=True)
        (folder / "footage.mp4").write_bytes(b"ann speaks")
    lock = lock_folder(held)
    try:
        erase(actors, ann)
    finally:
        os.close(lock)
    assert not left.exists()
    assert (held / "footage.mp4").exists()


def test_running_gateway_erases(actors: ActorStore, other: ActorStore, ann: str) -> None:
    """If a gateway holds the database, the gateway erases."""
    actors.database.claim()
    asked: list[ErasureReceipt] = []
    asking = threading.Thread(target=lambda: asked.append(other.erasures.erase_or_ask(ann)))
    asking.start()
    deadline = time.monotonic() + 60
    while not (found := actors.erasures.open()) and time.monotonic() < deadline:
        time.sleep(0.01)
    ((_, actor_id),) = found
    assert actors.find(ann) is not None, "the process that asks erases nothing itself"
    receipt = actors.erasures.carry_out(actor_id)
    asking.join(timeout=60)
    assert asked == [receipt]
    assert actors.erasures.open() == []


def test_a_gateway_that_cannot_erase_says_why(actors: ActorStore, other: ActorStore, ann: str) -> None:
    actors.database.claim()
    caught: list[Exception] = []

    def ask() -> None:
        try:
            other.erasures.erase_or_ask(ann)
        except OverloadedError as problem:
            caught.append(problem)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 60
    while not (found := actors.erasures.open()) and time.monotonic() < deadline:
        time.sleep(0.01)
    actors.erasures.fail(found[0][0], OverloadedError("work on ann has not stopped yet", retry_after_s=5.0))
    asking.join(timeout=60)
    assert [str(problem) for problem in caught] == ["work on ann has not stopped yet"]
    assert actors.find(ann) is not None


def test_asking_process_erases_instead(actors: ActorStore, other: ActorStore, ann: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the gateway ends meanwhile, the process that asked erases."""
    monkeypatch.setattr(erasure, "_CLAIM_EVERY_S", 0.1)
    actors.database.claim()
    asking = threading.Thread(target=lambda: other.erasures.erase_or_ask(ann))
    asking.start()
    time.sleep(0.3)
    assert actors.find(ann) is not None
    actors.database.release_claim()
    asking.join(timeout=60)
    assert actors.find(ann) is None


def test_interrupted_erasure_is_finished(actors: ActorStore, other: ActorStore, ann: str) -> None:
    """An erasure that was interrupted is finished by the next process."""
    actors.erasures.ask(ann)  # and then killed
    ((_, actor_id),) = other.erasures.open()
    other.erasures.carry_out(actor_id)
    assert other.erasures.open() == []
    assert actors.find(ann) is None


def test_one_gateway_at_a_time_holds_a_database(actors: ActorStore, other: ActorStore) -> None:
    actors.database.claim()
    with pytest.raises(InvalidRequestError, match="another gateway works with the database"):
        other.database.claim()
    actors.database.close()
    other.database.claim()


async def test_work_ends_with_its_actor() -> None:
    """Work ends with the actor it is done with."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def check() -> None:
        raise ActorNotReadyError("actor 'ann' was erased", subject="ann")

    with pytest.raises(ActorError):
        await while_allowed(check, work(), every_s=0.01)
    assert ended.is_set()


async def test_work_that_ends_by_itself_gives_its_result() -> None:
    looks = 0

    async def work() -> int:
        while looks < 2:  # noqa: ASYNC110 - a thread looks
            await asyncio.sleep(0.001)
        return 7

    def look() -> None:
        nonlocal looks
        looks += 1

    assert await while_allowed(look, work(), every_s=0.01) == 7
    assert looks >= 2
