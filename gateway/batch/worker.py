"""The worker of all engines: one shot of a batch, from its record to its video and its new record.

A worker's context has the stores, the folder of jobs, and the stages, which stay warm from shot to shot. A shot becomes the same
request, with the same checks, as the options of `dubstage dub`. Shots with the same mouths, such as one dub in two codecs, share a
job folder, so they are dubbed one after the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.actors.installation import Installation, open_installation
from gateway.actors.watch import FORBIDDEN, while_allowed
from gateway.async_utilities import entered_in_threads, in_thread, settle_all
from gateway.batch.leases import WAIT_S, shot_lease
from gateway.batch.quality import measured_while_allowed, reasons_to_look
from gateway.batch.records import (
    CANCELLED,
    VideoMetrics,
    begun,
    cancelled,
    died,
    done,
    failed,
    failure_of,
    interrupted,
)
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, MAX_ATTEMPTS, WORKERS_FOLDER, WRITTEN, ShotRecord, ShotSpec, ShotState, options_in
from gateway.dub.job.key import resolved_options
from gateway.dub.progress import OnProgress
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.request.spec import mouths_of, sequence_of
from gateway.dub.sound.speech_command import SpokenText, spoken_text
from gateway.dub.state.scratch import ScratchFolders
from gateway.dub.state.workspace import JobRunningError, is_running, locked_in_thread
from gateway.engine import Dub, Engine
from gateway.housekeeping import expire, open_jobs_folder
from gateway.media.locations import is_url, local_path
from gateway.media.sequences import SequenceDub, sequence_fault
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from gateway.stages.remote import RemoteStages
from gateway.times import now_ms
from gateway.transfer import digest_of, fetched_in_thread, output_file, remove_uploaded, upload
from services.common.errors import (
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    MediaUnsupportedError,
    StorageRefusedError,
    WorkCancelledError,
)

POLL_S: Final = 2.0
"""Seconds between two looks whether a running shot was cancelled."""
_TRIES_S: Final = (1.0, 4.0, 10.0)
"""Seconds before each further try to write a record, if the database does not answer."""

T = TypeVar("T")


class WorkerContext:
    """Stores, folders and stages that a worker dubs shots with. `open_worker_context` makes the context.

    Attributes:
        installation: the open stores, with the settings.
        engine: dubs the shots.

    Args:
        installation: see the attribute.
        stack: closes what the context opens.
        serving: returns stages that are open already, as soon as they serve; None: the context opens stages of its own.
        warm_up: load all networks of own stages in this process when they are opened.
    """

    def __init__(
        self,
        installation: Installation,
        stack: AsyncExitStack,
        serving: Callable[[], Awaitable[Stages]] | None = None,
        *,
        warm_up: bool = False,
    ) -> None:
        self.installation = installation
        self.engine = Engine.of(installation)
        self._stack = stack
        self._serving = serving
        self._warm_up = warm_up
        self._opened: Stages | None = None
        self._opening = asyncio.Lock()
        self._scratch = ScratchFolders(installation.settings.data_dir)
        stack.callback(self._scratch.close)

    @property
    def settings(self) -> GatewaySettings:
        """Settings of the process."""
        return self.installation.settings

    async def stages(self) -> Stages:
        """Return the stages. The first call opens them. Later calls wait until each remote stage serves again.

        Raises:
            DubstageError: the stages cannot be opened, or a remote stage does not serve within `stages_start_s`.
        """
        if self._serving is not None:
            return await self._serving()
        limit_s = self.settings.stages_start_s
        async with self._opening:
            if self._opened is None:
                opening = open_stages(self.settings, connect_s=limit_s, warm_up=self._warm_up)
                self._opened = await self._stack.enter_async_context(opening)
            elif isinstance(self._opened, RemoteStages):
                await self._opened.wait_until_serving(limit_s)
            return self._opened

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Make an empty folder for copies of media, and remove the folder at the end. Blocks."""
        with self._scratch.folder() as folder:
            yield folder


@asynccontextmanager
async def open_worker_context(settings: GatewaySettings, *, warm_up: bool = False) -> AsyncIterator[WorkerContext]:
    """Open the stores of a worker. At the end, the stages are closed, and old jobs are removed as after a dub.

    Args:
        warm_up: see `WorkerContext`.

    Raises:
        DubstageError: the data folder, the database or the artefact store cannot be used.
    """
    await asyncio.to_thread(open_jobs_folder, settings.data_dir)
    with open_installation(settings) as installation:
        async with AsyncExitStack() as stack:
            context = WorkerContext(installation, stack, warm_up=warm_up)
            yield context
        await in_thread(expire, settings, installation.actors, installation.artefacts, context.engine.jobs)


class ShotFiles:
    """Files of this machine for the paths and URLs of a shot.

    Args:
        files: file by the path or URL that the shot reads.
        output: file that the shot writes.
    """

    def __init__(self, files: Mapping[str, Path], output: Path) -> None:
        self._files = files
        self._output = output

    def source(self, uri: str, field: str) -> Path:
        """Return the file that is read. A path that the shot does not name is that of the silence before words are spoken."""
        return self._files.get(uri, Path(uri))

    def output(self, uri: str, field: str) -> Path:
        """Return the file that is written."""
        return self._output

    def record(self, uri: str, field: str) -> Path:
        """Return the file of a consent record."""
        return self._files[uri]


@asynccontextmanager
async def shot_frames(context: WorkerContext, shot: ShotSpec, on_progress: OnProgress) -> AsyncIterator[SequenceDub | None]:
    """Yield the image sequence of a shot, whose pictures are read as a video; None: the footage is a video.

    Raises:
        DubstageError: as `dubstage dub` for the same options.
    """
    settings = await in_thread(sequence_of, shot.dub)
    if settings is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(entered_in_threads(context.scratch_folder()))
        output = await in_thread(output_file, shot.output, folder)
        read = [Path(path) for field, uri in shot.inputs.items() if field != "footage" and (path := local_path(uri)) is not None]
        footage = Path(local_path(shot.dub.footage_uri) or shot.dub.footage_uri)
        yield await context.engine.frames(footage, output, settings, folder, on_progress, inputs=read)


@asynccontextmanager
async def shot_request(context: WorkerContext, shot: ShotSpec, frames: SequenceDub | None = None) -> AsyncIterator[DubRequest]:
    """Yield the checked dub request of a shot, whose files are on this machine.

    Files of a URL are copied to this machine before. The file of a video that goes to a URL is removed at the end of the block.

    Args:
        context: what the worker dubs with.
        shot: row of the manifest.
        frames: the image sequence of the shot; None: the footage is a video.

    Raises:
        DubstageError: as `dubstage dub` for the same options; or a URL cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(entered_in_threads(context.scratch_folder()))
        limit = context.settings.max_job_bytes
        files: dict[str, Path] = {}
        for field, uri in shot.inputs.items():
            if uri not in files and not (frames is not None and field == "footage"):
                files[uri] = await fetched_in_thread(uri, folder, max_bytes=limit, field=field)
        if frames is None:
            output = await in_thread(output_file, shot.output, folder)
        else:
            output, files[shot.dub.footage_uri] = frames.dubbed, frames.video
        words, shot_files = words_of(context.settings, shot), ShotFiles(files, output)
        if words is not None:
            yield await context.engine.spoken_request(shot.dub, shot_files, {0: words}, frames=frames)
        else:
            yield await in_thread(partial(context.engine.checked_request, shot.dub, shot_files, frames=frames))


def words_of(settings: GatewaySettings, shot: ShotSpec) -> SpokenText | None:
    """Return the words of a shot with the command of this machine that speaks them; None: the shot has no words.

    Raises:
        InvalidRequestError: as `spoken_text`.
    """
    if shot.words is None:
        return None
    return spoken_text(settings, shot.words.say, language=shot.dub.language, voice=shot.words.voice)


async def retried_while_running(dub: Callable[[], Awaitable[T]]) -> T:
    """Return what `dub` returns. If another process, such as `dubstage dub`, runs the very same dub, call it again behind that one.

    Only the lock is asked while the other process runs, because every call of `dub` reads all files.
    """
    running: Path | None = None
    while True:
        if running is None or not await in_thread(is_running, running):
            try:
                return await dub()
            except JobRunningError as problem:
                running = problem.folder
        await asyncio.sleep(WAIT_S)


@asynccontextmanager
async def folder_lock(folder: Path) -> AsyncIterator[None]:
    """Wait until no other worker of this machine has the lock of a folder, and hold the lock inside the block.

    Args:
        folder: folder, which is made, and removed at the end.

    Raises:
        OSError: the folder cannot be made.
    """
    while True:
        try:
            handle = await locked_in_thread(folder)
            break
        except InvalidRequestError:
            await asyncio.sleep(WAIT_S)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@asynccontextmanager
async def same_job_lock(context: WorkerContext, shot: ShotSpec, request: DubRequest) -> AsyncIterator[None]:
    """Wait until no worker of this machine dubs a shot of the same job, and let no other worker begin with one inside the block.

    Without the wait, such a shot would begin in vain again and again, because the first worker has locked the job folder.

    Args:
        context: what the worker dubs with.
        shot: row of the manifest.
    """
    folder = context.settings.data_dir / WORKERS_FOLDER / f"job-{same_job_key(shot, request)}"
    async with folder_lock(folder):
        yield


def same_job_key(shot: ShotSpec, request: DubRequest) -> str:
    """Return a digest that shots of the same job have in common.

    Other shots may have the same digest, because the sizes of the files stand for their contents. Such shots wait in vain, and
    nothing is wrong with their videos.
    """
    mouths = mouths_of(shot.dub, of_lines=False)
    mouths.method = request.method
    resolved = resolved_options(request)
    files = [request.footage, *([request.speech] if request.speech is not None else [])]
    for field in ("footage_uri", "speech_uri", "reference_uri", *resolved):
        mouths.ClearField(field)  # type: ignore[arg-type]  # a field of DubSpec
    fit = "cut" if request.fit == "pad" else request.fit  # `pad` may be `cut`
    sizes = [os.path.getsize(file) for file in files]
    return hashlib.sha256(repr((fit, sizes, resolved)).encode() + mouths.SerializeToString(deterministic=True)).hexdigest()[:24]


class ShotDub:
    """The dub of one shot.

    Args:
        context: what the worker dubs with.
        shot: row of the manifest.
        on_progress: called with every frame and step.
        confirm: raises WorkCancelledError if another process has taken the shot over; blocks. Called before the video is
            stored.
        batch: name of the batch in the audit log; empty: none.
        row: row of the shot in the batch, from 0, in the audit log.
    """

    def __init__(
        self,
        context: WorkerContext,
        shot: ShotSpec,
        on_progress: OnProgress,
        confirm: Callable[[], None] = lambda: None,
        *,
        batch: str = "",
        row: int = 0,
    ) -> None:
        self._context = context
        self._batch = batch
        self._row = row
        self._shot = shot
        self._on_progress = on_progress
        self._confirm = confirm
        self._dub: Dub | None = None
        self._uploaded: dict[str, str] = {}

    async def run(self) -> VideoMetrics:
        """Dub the shot, and return the figures of the video. The job's folder stays until `discard`.

        A run that fails leaves what `dubstage dub` leaves, so that the next attempt on this machine goes on from there.

        Raises:
            DubstageError: the request was refused, or the dub failed. No output is left.
        """
        context = self._context
        async with (
            shot_frames(context, self._shot, self._on_progress) as frames,
            shot_request(context, self._shot, frames) as request,
            same_job_lock(context, self._shot, request),
        ):
            stages = await context.stages()
            await in_thread(context.engine.sealer)
            # The folder stays locked until the video is measured: a worker that removes the same folder comes later.
            with context.engine.dub(request, stages, frames=frames, confirm=self._confirm) as dub:
                self._dub = dub
                return await self._dubbed(request, dub, stages)

    async def _dubbed(self, request: DubRequest, dub: Dub, stages: Stages) -> VideoMetrics:
        """Dub the shot, and return the figures of the video, which are measured while the job's folder is open."""
        async with dub.recorded(batch=self._batch, row=self._row) as record:
            outcome = await retried_while_running(lambda: dub.run(self._on_progress))
            await record.video(request.output, outcome.watermark)
            self._on_progress("measure", 0, 1)
            try:
                # A video whose measurement is interrupted is dubbed again: its end is recorded once, behind the measurement.
                metrics = await measured_while_allowed(request, outcome, dub.workspace, stages, dub.check)
                if digest := await dub.write_frames(outcome, self._on_progress):
                    metrics = replace(metrics, output_sha256=digest)
                if is_url(self._shot.output):
                    self._on_progress("upload", 0, 1)
                    await in_thread(self._upload, dub, request.output)
                return metrics
            except FORBIDDEN:
                # As of a dub whose actor is erased or whose consent ends meanwhile, nothing is kept.
                await dub.forget()
                raise

    def _upload(self, dub: Dub, video: Path) -> None:
        dub.confirm()
        upload(video, self._shot.output, self._uploaded.__setitem__)

    def check(self) -> None:
        """Check that the person may be shown. Blocks.

        Raises:
            ActorError: the actor was erased meanwhile.
            ConsentRefusedError: the consent has ended.
        """
        if self._dub is not None:
            self._dub.check()

    async def withdraw(self) -> None:
        """Remove the video, if this run has written it, and what the dub keeps for another run."""
        if self._dub is not None:
            await self._dub.withdraw()
            await in_thread(remove_uploaded, self._uploaded)

    async def discard(self) -> None:
        """Remove what the dub keeps for another run. The video stays. Errors go to the log."""
        if self._dub is not None:
            await self._dub.discard_or_log()


class ShotCancelledError(WorkCancelledError):
    """A person has cancelled the shot that is being dubbed."""


def exit_code_of(record: ShotRecord) -> int:
    """Return the exit code of a worker of one shot. A shot that is done, marked for a look, or cancelled ends with 0.

    A video without a dubbed frame has a code of its own.

    A shot whose attempts are used up waits for a person, even if its last error was one that another attempt may mend.
    """
    if record.state in (ShotState.DONE, ShotState.CANCELLED):
        return 0
    if record.state is ShotState.FAILED and record.exit_code == BackendUnavailableError.exit_code:
        return StorageRefusedError.exit_code
    return record.exit_code or 0


def worker_name() -> str:
    """Return HOST:PID of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def run_shot(
    context: WorkerContext,
    store: BatchStore,
    name: str,
    index: int,
    *,
    on_progress: OnProgress = lambda *_: None,
    confirm: Callable[[], None] = lambda: None,
) -> ShotRecord:
    """Dub one shot of a batch, and return the shot's new record, which is stored.

    A shot that has ended is not computed again: its record is returned. A shot that is done is computed again only if its video is
    gone or was changed. If another worker has the shot, this one waits for that worker's end. An error of the shot is told by its
    record. If the task is cancelled, the shot waits again, and the attempt does not count.

    Args:
        context: what the worker dubs with.
        store: store of batches.
        name: name of the batch.
        index: row of the shot, from 0.
        on_progress: called with every frame and step.
        confirm: checks that no other process has taken the shot over; blocks. Called before a video or a record is stored.
            Raises WorkCancelledError if another process has taken the shot.

    Raises:
        WorkCancelledError: from `confirm`. Nothing was written.
        DubstageError: the store of batches cannot be used.
    """
    async with shot_lease(store, name, index) as holder:
        shot = await in_thread(store.shot, name, index)
        return await _Attempt(context, store, name, shot, index, holder=holder, on_progress=on_progress, confirm=confirm).run()


async def video_fault(shot: ShotSpec, record: ShotRecord) -> str:
    """Return what became of the video of a shot that is done, such as `was gone`; empty: the video is as it was written.

    Raises:
        DubstageError: the path or URL of the video cannot be read.
    """
    if shot.is_sequence:
        return await in_thread(sequence_fault, Path(shot.result), record.output_sha256)
    try:
        digest = await in_thread(digest_of, shot.output)
    except MediaUnsupportedError:
        return "was changed"  # the file is empty
    if digest is None:
        return "was gone"
    return "" if digest == record.output_sha256 else "was changed"


class _Attempt:
    """One attempt at a shot: the record before, the dub, and the record after.

    Args:
        holder: holder of the shot's lease.

    The other arguments: see run_shot.
    """

    def __init__(
        self,
        context: WorkerContext,
        store: BatchStore,
        name: str,
        shot: ShotSpec,
        row: int,
        *,
        holder: str,
        on_progress: OnProgress,
        confirm: Callable[[], None],
    ) -> None:
        self._store, self._name, self._shot, self._confirm = store, name, shot, confirm
        self._holder = holder
        self._dub_of = partial(ShotDub, context, on_progress=on_progress, confirm=confirm, batch=name, row=row)
        self._dub = self._dub_of(shot)

    async def run(self) -> ShotRecord:
        before = record = await in_thread(self._store.record, self._name, self._shot.id)
        redone = ""
        if record.state in WRITTEN:
            redone = await video_fault(self._shot, record)
            if not redone:
                return record
            record = ShotRecord(id=record.id)
        if record.state in (ShotState.FAILED, ShotState.CANCELLED):
            return record
        if await in_thread(self._store.is_cancelled, self._name, self._shot.id):
            return await self._put(cancelled(record, now_ms()))
        if record.state is ShotState.RUNNING and record.attempts >= MAX_ATTEMPTS:
            return await self._end(record, died(record, "it left the shot running", now_ms()))
        # Changed options are written before the record that lets the shot begin anew, so they are read after the record.
        options = await in_thread(self._store.options, self._name, self._shot.id)
        self._shot = self._shot.with_options(options_in(options))
        self._dub = self._dub_of(self._shot)
        record = begun(record, worker_name(), self._shot.result, now_ms()).model_copy(update={"options": options})
        try:
            # In place of the record that this attempt has read: a shot that was cancelled meanwhile never runs again.
            stored = await self._put(record, before=before, holder=self._holder)
        except asyncio.CancelledError:
            await self._put_back(record)
            raise
        return await self._dubbed(record, redone) if stored == record else stored

    async def _put_back(self, record: ShotRecord) -> None:
        """Let the shot wait again, whose worker was told to end."""
        # If another process has taken the shot over, the record is that process's.
        with suppress(WorkCancelledError):
            await self._end(record, interrupted(record))

    async def _dubbed(self, record: ShotRecord, redone: str) -> ShotRecord:
        began = time.monotonic()
        try:
            metrics = await while_allowed(self._check, self._dub.run(), every_s=POLL_S)
        except asyncio.CancelledError:
            await self._put_back(record)
            raise
        except ShotCancelledError:
            await self._dub.withdraw()
            return await self._end(record, cancelled(record, now_ms()))
        except Exception as problem:
            return await self._end(record, failed(record, failure_of(problem), time.monotonic() - began, now_ms()))
        if redone:
            metrics = replace(metrics, warnings=(*metrics.warnings, f"the video of an earlier run {redone}: it was made anew"))
        # A video that is written is never dubbed again because its worker was told to end in the wrong moment.
        finished = asyncio.ensure_future(self._finished(record, metrics, time.monotonic() - began))
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            # A worker that is told to end is cancelled twice: by the signal, and by the end of the pipe.
            await settle_all([finished])
            raise

    async def _finished(self, record: ShotRecord, metrics: VideoMetrics, seconds: float) -> ShotRecord:
        if metrics.thumbnail:
            await self._kept(lambda: self._store.put_thumbnail(self._name, self._shot.id, metrics.thumbnail))
            try:
                # Only now: an erasure that begins later finds the picture. The video was complete before, and stays.
                await self._kept(self._dub.check)
            except DubstageError:
                # The person may not be shown any more, or the database does not say. The record is complete without the picture.
                await self._kept(lambda: self._store.remove_thumbnails(self._name, [self._shot.id]))
        record = done(record, metrics, seconds, now_ms())
        record = await self._put(record.model_copy(update={"look": (*record.look, *reasons_to_look(self._shot.quality, record))}))
        # Until the record is stored, a worker that takes the shot over can go on from the job's folder. The folder of a scene stays
        # until it expires, so that a line can be changed. The folder of a pod ends with the pod.
        kept = bool(self._shot.dub.lines) and (await in_thread(self._store.facts, self._name)).engine != "kubernetes"
        if not kept:
            await self._dub.discard()
        return record

    def _check(self) -> None:
        if self._store.is_cancelled(self._name, self._shot.id):
            raise ShotCancelledError(CANCELLED)

    async def _end(self, before: ShotRecord, record: ShotRecord) -> ShotRecord:
        """Store how an attempt without a video ended, and return the record that counts.

        The end is stored only in place of `before`, the record that the attempt knows. Another machine may have done the shot
        meanwhile, or have begun the shot, or a person may have reset the shot: then the stored record stays.
        """
        stored = await self._put(record, before=before)
        return stored if stored.state in ENDED else record

    async def _put(self, record: ShotRecord, *, before: ShotRecord | None = None, holder: str = "") -> ShotRecord:
        """Store a record as `BatchStore.put` does, and return the record that is stored then."""
        stored = record

        def write() -> None:
            nonlocal stored
            self._confirm()
            if not self._store.put(self._name, record, before=before, holder=holder):
                stored = self._store.record(self._name, record.id)

        await self._kept(write)
        return stored

    async def _kept(self, write: Callable[[], object]) -> None:
        """Write to the store of batches, and try again while the database does not answer."""
        for wait_s in _TRIES_S:
            try:
                await in_thread(write)
                return
            except DubstageError as problem:
                if not problem.retryable:
                    raise
            await asyncio.sleep(wait_s)
        await in_thread(write)
