"""Batches on real clips: every shot ends once, in the right state, whatever dies meanwhile, and with the bytes of a plain dub."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3fs import S3FileSystem

from gateway.actors.create import EnrolRequest, create_actor
from gateway.batch import worker
from gateway.batch.changes import begin_anew
from gateway.batch.local import WorkerProcess, run_local
from gateway.batch.store import BatchStore
from gateway.batch.types import MAX_ATTEMPTS, Quality, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.batch.worker import WorkerContext, exit_code_of, open_worker_context, run_shot, shot_request, worker_name
from gateway.dub.job import dub_job
from gateway.dub.job.dub_job import DubJob
from gateway.dub.state.workspace import Workspace, open_workspace
from gateway.media.sequences import sequence_fault
from gateway.provenance.binding import media_sha256
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError, WorkCancelledError
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.contract.stores.s3_servers import BUCKET, S3Server, aws, s3
from tests.erasing import erase
from tests.file_limit import files_of_at_most
from tests.frame_files import FIRST, write_sequence
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, cut, sha256
from tests.unit.batch.rows import changed_shot, shot_of_row
from tests.written_pictures import write_pictures

__all__ = ["aws", "s3"]


def settings_in(folder: Path, **more: Any) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=folder / "data", artefacts_url=str(folder / "artefacts"), **more)


def shot(shot_id: str, footage: Path, folder: Path, **more: Any) -> ShotSpec:
    output = folder / "videos" / f"{shot_id}.mp4"
    return shot_of_row(id=shot_id, footage=str(footage), speech=str(SPEECH), output=str(output), personalize=False, **more)


def batch_of(folder: Path, *shots: ShotSpec) -> BatchStore:
    store = open_store(folder / "data")
    store.create(manifest_of("night", shots), "local")
    return store


def nobody(path: Path) -> Path:
    """Half a second of noise."""
    return write_pictures(path, np.random.default_rng(5).integers(0, 255, (12, 96, 128, 3), np.uint8))


async def dubbed_plainly(dubber: Dubber, worker_context: WorkerContext, row: ShotSpec, output: Path) -> str:
    """Digest of the video that a dub without a batch writes, without the manifest."""
    async with shot_request(worker_context, changed_shot(row, output=str(output))) as request:
        await asyncio.to_thread(dubber, request, sealer=worker_context.engine.sealer())
    return media_sha256(output)


async def until(found: Callable[[], Any], limit_s: float = 300.0) -> Any:
    end = time.monotonic() + limit_s
    while not (result := found()):
        assert time.monotonic() < end, "nothing happened"
        await asyncio.sleep(0.02)
    return result


def running(store: BatchStore, shot_id: str) -> int:
    """Process id of the worker that has a shot; 0: nobody has the shot."""
    record = store.record("night", shot_id)
    return int(record.worker.rpartition(":")[2]) if record.state is ShotState.RUNNING else 0


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.long
async def test_batch_survives_every_crash(dubber: Dubber, carphone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever dies, each shot of a batch is dubbed once."""
    settings = settings_in(tmp_path, watermark=False)
    short, longer = cut(carphone, tmp_path / "short.mkv", 0.0, 1.0), cut(carphone, tmp_path / "longer.mkv", 0.5, 2.1)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(short.read_bytes()[:2000])
    rows = [
        shot("killed", longer, tmp_path),
        shot("cancelled", carphone, tmp_path, codec="ffv1"),
        shot("damaged", damaged, tmp_path),
        shot("nobody", nobody(tmp_path / "nobody.mkv"), tmp_path, quality=Quality(min_dubbed_share=0.5, min_r_opening=0.5)),
        shot("plain", short, tmp_path, quality=Quality(min_dubbed_share=0.9, min_r_opening=0.3)),
    ]
    store = batch_of(tmp_path, *rows)

    # A submit that is interrupted ends its workers, and puts their shots back.
    first = asyncio.create_task(run_local(settings, store, "night", workers=1))
    pid = await until(lambda: running(store, "killed"))
    with pytest.raises(InvalidRequestError, match="another SubmitBatch runs batch night"):
        await run_local(settings, store, "night", workers=1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert is_gone(pid)
    assert store.record("night", "killed") == ShotRecord(id="killed", output=rows[0].output)

    batch = asyncio.create_task(run_local(settings, store, "night", workers=2))
    pid = await until(lambda: running(store, "killed"))
    await until(lambda: list(tmp_path.glob("data/jobs/*/faces.bin")) or batch.done())
    assert not batch.done(), await batch
    os.kill(pid, signal.SIGKILL)
    await until(lambda: "signal 9" in store.record("night", "killed").error)
    await until(lambda: running(store, "cancelled") or store.record("night", "cancelled").state is ShotState.DONE)
    store.cancel("night", ["cancelled"])
    await until(lambda: store.record("night", "cancelled").state is ShotState.CANCELLED)
    records = {record.id: record for record in await batch}

    states = {shot_id: (record.state.value, exit_code_of(record), record.attempts) for shot_id, record in records.items()}
    assert states == {
        "killed": ("done", 0, 2),
        "cancelled": ("cancelled", 0, 1),
        "damaged": ("failed", 10, 1),
        "nobody": ("undubbed", 13, 1),
        "plain": ("done", 0, 1),
    }
    assert "damaged.mkv" in records["damaged"].error
    assert (records["nobody"].frames_dubbed, records["nobody"].r_opening, records["nobody"].motion) == (0, None, None)
    motion = records["killed"].motion
    assert motion.fastest_step is not None
    assert 0.0 < motion.fastest_step < 10.0
    seen = records["killed"].appearance
    assert seen.face_distance is not None
    assert 0.0 < seen.face_distance < 0.43
    assert [re.sub(r"\d.*", "", reason) for reason in records["nobody"].look] == [
        "none of the ",
        "",
        "the correlation of target and drawn mouth opening was not measured",
    ]
    assert (records["plain"].look, records["plain"].frames, records["plain"].frames_dubbed) == ((), 30, 30)

    # Nothing half written, and nothing of a shot that was cancelled or failed.
    videos = {f"{name}.mp4" for name in ("killed", "nobody", "plain")}
    assert {path.name for path in (tmp_path / "videos").iterdir()} == videos
    assert list((tmp_path / "data" / "jobs").iterdir()) == []
    async with open_worker_context(settings) as worker_context:
        for row in rows:
            if row.id in ("killed", "plain"):
                plain = await dubbed_plainly(dubber, worker_context, row, tmp_path / f"plain-{row.id}.mp4")
                assert records[row.id].output_sha256 == sha256(Path(row.output)), row.id
                assert plain == media_sha256(Path(row.output)), row.id
    for shot_id in ("nobody", "plain"):
        assert store.thumbnail("night", shot_id).startswith(b"\xff\xd8")

    # Nothing is left to do, so that no worker is started.
    monkeypatch.setattr(WorkerProcess, "start", None)
    assert {record.id: record for record in await run_local(settings, store, "night", workers=2)} == records


@pytest.mark.long
async def test_worker_recomputes_changed_video(worker_context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """A worker computes a shot again only if the video is gone or changed."""
    footage = cut(carphone, tmp_path / "short.mkv", 0.0, 1.0)
    row, twin = shot("one", footage, tmp_path), shot("twin", footage, tmp_path, codec="ffv1")
    store, video = batch_of(tmp_path, row, twin), Path(row.output)

    # Put back at any moment, the shot waits, and the attempt does not count.
    attempt = asyncio.create_task(run_shot(worker_context, store, "night", 0))
    await until(lambda: running(store, "one"))
    await asyncio.sleep(0.5)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert (store.record("night", "one").state, store.record("night", "one").attempts) == (ShotState.WAITING, 0)
    assert not video.exists()

    # Two shots with the same mouths have one job folder, so that one of them waits for the other.
    both = (run_shot(worker_context, store, "night", 0), run_shot(worker_context, store, "night", 1))
    first, second = await asyncio.gather(*both)
    assert (second.state, second.attempts, second.warnings) == (ShotState.DONE, 1, first.warnings)
    assert second.r_opening is not None
    assert (first.state, first.worker, first.attempts, first.output_sha256) == (ShotState.DONE, worker_name(), 1, sha256(video))
    assert first.r_opening is not None
    assert 0.5 < first.r_opening <= 1
    assert await run_shot(worker_context, store, "night", 0) == first

    # A video that is gone is made anew too: see test_image_sequences.
    media = media_sha256(video)
    video.write_bytes(video.read_bytes() + bytes(8))
    again = await run_shot(worker_context, store, "night", 0)
    assert again.output_sha256 == sha256(video)
    assert media_sha256(video) == media
    assert again.warnings == (*first.warnings, "the video of an earlier run was changed: it was made anew")
    assert again.r_opening == first.r_opening

    # Files that dubstage did not write are never replaced.
    video.write_bytes(b"somebody else's")
    record = await run_shot(worker_context, store, "night", 0)
    assert (record.state, record.exit_code, video.read_bytes()) == (ShotState.FAILED, 10, b"somebody else's")
    assert str(video) in record.error


def plates(carphone: Path, folder: Path) -> ShotSpec:
    """A shot of 25 frames."""
    (folder / "plates").mkdir()
    footage = write_sequence(carphone, folder / "plates" / "a.%04d.dpx", 25, bits=10)
    return changed_shot(shot("one", footage, folder), output=str(folder / "videos" / "b.%04d.dpx"))


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a dubbed sequence, without the signatures, which have random bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".c2pa"}


@pytest.mark.long
async def test_image_sequences(worker_context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """A row with an image sequence is dubbed once, and again only if a frame is gone or changed."""
    row = plates(carphone, tmp_path)
    store, videos = batch_of(tmp_path, row), tmp_path / "videos"
    listing, steps = videos / "b.sha256", list[str]()
    first = await run_shot(worker_context, store, "night", 0, on_progress=lambda step, *_: steps.append(step))
    assert (first.state, first.error, first.output, first.output_sha256) == ("done", "", str(listing), sha256(listing))
    assert (first.frames, first.frame_rate, first.has_thumbnail) == (25, "25", True)
    assert first.frames_dubbed > 20
    assert {"read frames", "write frames"} < set(steps)
    assert verdict_of(listing).state is ManifestState.VALID
    files = contents(videos)
    assert set(files) == {"b.sha256", "b.wav", *(f"b.{FIRST + frame}.dpx" for frame in range(25))}
    assert list(worker_context.engine.jobs.iterdir()) == []
    assert await run_shot(worker_context, store, "night", 0) == first

    (videos / f"b.{FIRST + 7}.dpx").unlink()
    again = await run_shot(worker_context, store, "night", 0)
    assert again.warnings == (*first.warnings, "the video of an earlier run was gone: it was made anew")
    assert contents(videos) == files

    assert begin_anew(store, "night", ["one"]) == ["one"]
    assert (await run_shot(worker_context, store, "night", 0)).state is ShotState.DONE
    assert contents(videos) == files

    # Frames that dubstage did not write are never replaced.
    (videos / f"b.{FIRST + 7}.dpx").write_bytes(b"somebody else's")
    record = await run_shot(worker_context, store, "night", 0)
    assert (record.state, record.exit_code) == (ShotState.FAILED, 10)
    assert f"b.{FIRST + 7}.dpx exists" in record.error
    assert contents(videos) == {**files, f"b.{FIRST + 7}.dpx": b"somebody else's"}


@pytest.mark.long
async def test_cancelled_image_sequence(worker_context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """A shot that is cancelled while its frames are written leaves none."""
    store = batch_of(tmp_path, plates(carphone, tmp_path))

    def cancel(step: str, *_: int) -> None:
        if step == "write frames" and not store.is_cancelled("night", "one"):
            store.cancel("night", ["one"])
            time.sleep(3 * worker.POLL_S)

    assert (await run_shot(worker_context, store, "night", 0, on_progress=cancel)).state is ShotState.CANCELLED
    assert list((tmp_path / "videos").iterdir()) == []
    assert list(worker_context.engine.jobs.iterdir()) == []


@pytest.mark.long
async def test_killed_worker_of_image_sequence(carphone: Path, tmp_path: Path) -> None:
    """A worker that is killed while it writes frames costs one try, and leaves nothing."""
    store, videos = batch_of(tmp_path, plates(carphone, tmp_path)), tmp_path / "videos"
    batch = asyncio.create_task(run_local(settings_in(tmp_path), store, "night", workers=1))
    await until(lambda: list(videos.glob(".dubstage-*.partial/b.*.dpx")) or batch.done(), 600)
    os.kill(running(store, "one"), signal.SIGKILL)
    (record,) = await batch
    assert (record.state, record.attempts) == (ShotState.DONE, 2)
    assert {path.suffix for path in videos.iterdir()} == {".dpx", ".wav", ".sha256", ".c2pa"}
    assert sequence_fault(videos / "b.sha256", record.output_sha256) == ""
    assert not list((tmp_path / "data").glob("fetched/*/*"))


@pytest.mark.long
async def test_late_folder_removal_spares_twin(worker_context, carphone, tmp_path, monkeypatch) -> None:
    """A folder that is removed late costs a worker of the same shot nothing."""
    footage = cut(carphone, tmp_path / "short.mkv", 0.0, 1.0)
    store = batch_of(tmp_path, shot("late", footage, tmp_path), shot("twin", footage, tmp_path, codec="ffv1"))
    dubbed, removed, discard = threading.Event(), threading.Event(), DubJob.discard

    def discard_late(job: DubJob) -> None:
        """The first worker removes the folder as soon as the second has written its video, and not before."""
        if dubbed.is_set():
            discard(job)
            return
        assert dubbed.wait(300)
        try:
            discard(job)
        finally:
            removed.set()

    def between_video_and_measurement(step: str, *_: int) -> None:
        if step == "measure":
            dubbed.set()
            assert removed.wait(300)

    monkeypatch.setattr(DubJob, "discard", discard_late)
    late = asyncio.create_task(run_shot(worker_context, store, "night", 0))
    await until(lambda: store.record("night", "late").state is ShotState.DONE)
    twin = await run_shot(worker_context, store, "night", 1, on_progress=between_video_and_measurement)
    assert (twin.state, twin.error, twin.exit_code) == (ShotState.DONE, "", 0)
    assert twin.r_opening is not None
    await late
    assert list(worker_context.engine.jobs.iterdir()) == []


async def test_record_tells_shot_failure(worker_context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """A worker tells by the record why a shot failed."""
    short = cut(carphone, tmp_path / "short.mkv", 0.0, 0.6)
    wanted = {"full": {"codec": "ffv1"}, "stranger": {"actor": "nobody-here"}, "face": {"face": "99"}, "died": {}, "cancelled": {}}
    rows = [shot(name, short, tmp_path, **more) for name, more in wanted.items()]
    store = batch_of(tmp_path, *rows)
    store.put("night", ShotRecord(id="died", state=ShotState.RUNNING, attempts=MAX_ATTEMPTS))
    store.cancel("night", ["cancelled"])
    await worker_context.stages()

    with files_of_at_most(400_000):  # the database has 290 kB
        full = await run_shot(worker_context, store, "night", 0)
    records = [full, *[await run_shot(worker_context, store, "night", row) for row in range(1, len(rows))]]
    assert records == store.records("night")
    ends = [(record.state.value, exit_code_of(record), record.attempts) for record in records]
    # On a disk that is full now, the next attempt may find room.
    assert ends == [("waiting", 20, 1), ("failed", 11, 1), ("failed", 10, 1), ("failed", 11, 3), ("cancelled", 0, 0)]
    said = ("no space left", "nobody-here", "has no face 99", "died in attempt 3 of 3", "")
    assert [record.error for text, record in zip(said, records, strict=True) if text not in record.error] == []
    assert not any("Traceback" in record.error for record in records)
    assert not (tmp_path / "videos").exists() or list((tmp_path / "videos").iterdir()) == []


async def test_required_consent_stops_shots(carphone: Path, tmp_path: Path) -> None:
    row = shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path)
    store = batch_of(tmp_path, row)
    async with open_worker_context(settings_in(tmp_path, require_consent=True)) as strict:
        record = await run_shot(strict, store, "night", 0)
    assert (record.state, exit_code_of(record)) == (ShotState.FAILED, 11)
    assert "consent" in record.error


@pytest.mark.long
async def test_erasure_during_measurement_leaves_nothing(worker_context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """Nothing stays of a person who is erased while the video is measured."""
    place = worker_context.installation
    enrol = EnrolRequest(actor_id="ada", footage=carphone, method="dubstage", options=UNPERSONALIZED)
    stages, jobs = await worker_context.stages(), worker_context.engine.jobs
    await create_actor(enrol, stages, place.actors, place.artefacts, jobs, on_progress=lambda *_: None)
    row = shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path, actor="ada")
    store = batch_of(tmp_path, row)

    erasing = threading.Thread(target=erase, args=(place.actors, "ada"))

    def begin_to_erase(step: str, *_: int) -> None:
        if step == "measure":
            assert Path(row.output).exists()
            erasing.start()
            while not place.actors.erasures.open():
                time.sleep(0.01)

    record = await run_shot(worker_context, store, "night", 0, on_progress=begin_to_erase)
    await asyncio.to_thread(erasing.join)
    assert (record.state, record.exit_code, record.has_thumbnail) == (ShotState.FAILED, 11, False)
    assert "ada" in record.error
    assert store.thumbnail("night", "one") is None
    assert list((tmp_path / "videos").iterdir()) == []
    assert list(worker_context.engine.jobs.iterdir()) == []


async def test_cancel_during_measurement_leaves_nothing(worker_context, carphone, tmp_path, monkeypatch) -> None:
    """Nothing stays of a shot that is cancelled while the video is measured."""
    monkeypatch.setattr(worker, "POLL_S", 0.01)
    row = shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path)
    store = batch_of(tmp_path, row)

    def cancel(step: str, *_: int) -> None:
        if step == "measure":
            assert Path(row.output).exists()
            store.cancel("night", ["one"])

    record = await run_shot(worker_context, store, "night", 0, on_progress=cancel)
    assert (record.state, exit_code_of(record), record.has_thumbnail) == (ShotState.CANCELLED, 0, False)
    assert list((tmp_path / "videos").iterdir()) == []
    assert list(worker_context.engine.jobs.iterdir()) == []


async def test_running_job_is_audited_once(
    worker_context: WorkerContext, carphone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits for another process with the same job has begun one dub, as the audit log says."""
    monkeypatch.setattr(worker, "WAIT_S", 0.02)
    store = batch_of(tmp_path, shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path))
    tries = list[Path]()

    def taken(folder: Path, operation: str = "", **more: Any) -> Workspace:
        tries.append(folder)
        with Workspace(folder):
            return open_workspace(folder, operation, **more)

    monkeypatch.setattr(dub_job, "open_workspace", taken)
    attempt = asyncio.create_task(run_shot(worker_context, store, "night", 0))
    await until(lambda: len(tries) == 3)
    attempt.cancel()
    await asyncio.wait([attempt])
    assert attempt.cancelled()
    events = [entry["event"] for entry in worker_context.installation.actors.audit.newest(10)]
    assert sorted(events) == ["dub.begun", "dub.cancelled"]


@pytest.fixture
def bucket(s3: S3Server, aws: Callable[..., None], tmp_path: Path) -> str:
    """A folder of a bucket, without objects."""
    aws(s3.endpoint)
    return f"s3://{BUCKET}/{tmp_path.name}"


async def test_cancel_during_upload_leaves_nothing(
    worker_context: WorkerContext, carphone: Path, tmp_path: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays in a bucket of a shot that is cancelled while its video is uploaded."""
    monkeypatch.setattr(worker, "POLL_S", 0.01)
    put_file, put = S3FileSystem.put_file, list[str]()
    row = shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path)
    store = batch_of(tmp_path, changed_shot(row, output=f"{bucket}/one.mkv"))

    def put_and_cancel(files: S3FileSystem, source: str, target: str, **more: Any) -> None:
        put_file(files, source, target, **more)
        put.append(target)
        store.cancel("night", ["one"])
        time.sleep(0.5)

    monkeypatch.setattr(S3FileSystem, "put_file", put_and_cancel)
    record = await run_shot(worker_context, store, "night", 0)
    assert (record.state, len(put)) == (ShotState.CANCELLED, 2)
    assert [key for key in s3.all_keys() if tmp_path.name in key] == []
    assert list(worker_context.engine.jobs.iterdir()) == []


async def test_lost_shot_uploads_nothing(
    worker_context: WorkerContext, carphone: Path, tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    """A worker whose shot another process has taken over while it measures the video uploads nothing."""
    row = shot("one", cut(carphone, tmp_path / "short.mkv", 0.0, 0.6), tmp_path)
    store, steps = batch_of(tmp_path, changed_shot(row, output=f"{bucket}/one.mp4")), list[str]()

    def confirm() -> None:
        if "measure" in steps:
            raise WorkCancelledError("another gateway has the batch")

    with pytest.raises(WorkCancelledError, match="another gateway"):
        await run_shot(worker_context, store, "night", 0, on_progress=lambda step, *_: steps.append(step), confirm=confirm)
    assert [key for key in s3.all_keys() if tmp_path.name in key] == []
