"""The worker of all engines: one shot of a batch, from its record to its film and its new record."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from gateway.actors.watch import while_allowed
from gateway.ahead import in_thread
from gateway.batch.bench import Bench
from gateway.batch.failures import failure_of
from gateway.batch.media import digest_of
from gateway.batch.quality import reasons_to_look
from gateway.batch.shot_dub import ShotDub
from gateway.batch.store import BatchStore
from gateway.batch.transitions import CANCELLED, Made, begun, cancelled, died, done, failed, interrupted, present_time
from gateway.batch.types import ENDED, MAX_ATTEMPTS, WRITTEN, Shot, ShotRecord, ShotState
from gateway.pipeline.progress import OnProgress
from services.common.errors import BackendUnavailable, Cancelled, DubstageError, MediaUnsupported, StorageRefused

LOOK_S: Final = 2.0
"""Seconds between two looks whether a running shot was cancelled."""
_TRIES_S: Final = (1.0, 4.0, 10.0)
"""Seconds before each further try to write a record, if the store of batches does not answer."""


def exit_code_of(record: ShotRecord) -> int:
    """Return the exit code of a worker of one shot. A shot that is done, marked for a look, or cancelled ends with 0.

    A film without a dubbed frame has a code of its own.

    A shot whose attempts are used up waits for a person, even if its last error was one that another attempt may mend.
    """
    if record.state in (ShotState.DONE, ShotState.CANCELLED):
        return 0
    if record.state is ShotState.FAILED and record.exit_code == BackendUnavailable.exit_code:
        return StorageRefused.exit_code
    return record.exit_code or 0


def worker_name() -> str:
    """Return HOST:PID of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def run_shot(
    bench: Bench,
    store: BatchStore,
    name: str,
    index: int,
    *,
    worker: str = "",
    on_progress: OnProgress = lambda *_: None,
    confirm: Callable[[], None] = lambda: None,
) -> ShotRecord:
    """Dub one shot of a batch, and return the shot's new record, which is stored.

    A shot that has ended is not computed again: its record is returned. A shot that is done is computed again only if its film is
    gone or was changed. If another worker of this machine has the shot, this one waits for that worker's end. An error of the shot
    is told by its record. If the task is cancelled, the shot waits again, and the attempt does not count.

    Args:
        bench: what the worker dubs with.
        store: store of batches.
        name: name of the batch.
        index: row of the shot, from 0.
        worker: name of this worker; empty: HOST:PID.
        on_progress: called with every frame and step.
        confirm: checks that no other process has taken the shot over; blocks. Called before a film or a record gets its place.
            Raises Cancelled if another process has taken the shot.

    Raises:
        Cancelled: from `confirm`. Nothing was written.
        DubstageError: the store of batches cannot be used.
    """
    shot = (await in_thread(store.manifest, name))[index]
    attempt = _Attempt(bench, store, name, shot, index, worker=worker or worker_name(), on_progress=on_progress, confirm=confirm)
    async with bench.turn_of_shot(f"{store.url}/{name}/{shot.id}"):
        return await attempt.run()


async def film_fault(shot: Shot, record: ShotRecord) -> str:
    """Return what became of the film of a shot that is done, such as `was gone`; empty: the film is as it was written.

    Raises:
        DubstageError: the place of the film cannot be read.
    """
    try:
        found = await in_thread(digest_of, shot.output)
    except MediaUnsupported:
        return "was changed"  # the file is empty
    if found is None:
        return "was gone"
    return "" if found == record.output_sha256 else "was changed"


class _Attempt:
    def __init__(
        self,
        bench: Bench,
        store: BatchStore,
        name: str,
        shot: Shot,
        row: int,
        *,
        worker: str,
        on_progress: OnProgress,
        confirm: Callable[[], None],
    ) -> None:
        self._store, self._name, self._shot, self._worker, self._confirm = store, name, shot, worker, confirm
        self._dub = ShotDub(bench, shot, on_progress, confirm, batch=name, row=row)

    async def run(self) -> ShotRecord:
        record = await in_thread(self._store.record, self._name, self._shot.id)
        redone = ""
        if record.state in WRITTEN:
            redone = await film_fault(self._shot, record)
            if not redone:
                return record
            record = ShotRecord(id=record.id)
        if record.state in (ShotState.FAILED, ShotState.CANCELLED):
            return record
        if await in_thread(self._store.is_cancelled, self._name, self._shot.id):
            return await self._put(cancelled(record, present_time()))
        if record.state is ShotState.RUNNING and record.attempts >= MAX_ATTEMPTS:
            return await self._end(record, died(record, "it left the shot running", present_time()))
        record = begun(record, self._worker, self._shot.output, present_time())
        try:
            await self._put(record)
        except asyncio.CancelledError:
            await self._put_back(record)
            raise
        return await self._dubbed(record, redone)

    async def _put_back(self, record: ShotRecord) -> None:
        """Let the shot wait again, whose worker was told to end."""
        # If another process has taken the shot over, the record is that process's.
        with suppress(Cancelled):
            await self._end(record, interrupted(record))

    async def _dubbed(self, record: ShotRecord, redone: str) -> ShotRecord:
        began = time.monotonic()
        try:
            made = await while_allowed(self._check, self._dub.run(), every_s=LOOK_S)
        except asyncio.CancelledError:
            await self._put_back(record)
            raise
        except Exception as problem:
            if isinstance(problem, Cancelled) and problem.message == CANCELLED:
                await self._dub.withdraw()
                return await self._end(record, cancelled(record, present_time()))
            return await self._end(record, failed(record, failure_of(problem), time.monotonic() - began, present_time()))
        if redone:
            made = replace(made, warnings=(*made.warnings, f"the film of an earlier run {redone}: it was made anew"))
        # A film that is written is never dubbed again because its worker was told to end in the wrong moment.
        finished = asyncio.ensure_future(self._finished(record, made, time.monotonic() - began))
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            await finished
            raise

    async def _finished(self, record: ShotRecord, made: Made, seconds: float) -> ShotRecord:
        if made.thumbnail:
            await self._kept(lambda: self._store.put_thumbnail(self._name, self._shot.id, made.thumbnail))
            try:
                # Only now: an erasure that begins later finds the picture. The film was complete before, and stays.
                await self._kept(self._dub.check)
            except DubstageError:
                # The person may not be shown any more, or the database does not say. The record is complete without the picture.
                await self._kept(lambda: self._store.remove_thumbnails(self._name, [self._shot.id]))
        record = done(record, made, seconds, present_time())
        record = await self._put(record.model_copy(update={"look": (*record.look, *reasons_to_look(self._shot.quality, record))}))
        # Until the record is stored, a worker that takes the shot over can go on from the job's folder.
        await self._dub.discard()
        return record

    def _check(self) -> None:
        if self._store.is_cancelled(self._name, self._shot.id):
            raise Cancelled(CANCELLED)

    async def _end(self, before: ShotRecord, record: ShotRecord) -> ShotRecord:
        """Store how an attempt without a film ended, and return the record that counts.

        The end is stored only in place of `before`, the record that the attempt knows. Another machine may have done the shot
        meanwhile, or have begun the shot, or a person may have reset the shot: then the stored record stays.
        """
        counts = record

        def write() -> None:
            nonlocal counts
            self._confirm()
            found = self._store.record(self._name, before.id)
            if found == before:
                self._store.put(self._name, record)
            elif found.state in ENDED:
                counts = found

        await self._kept(write)
        return counts

    async def _put(self, record: ShotRecord) -> ShotRecord:
        def write() -> None:
            self._confirm()
            self._store.put(self._name, record)

        await self._kept(write)
        return record

    async def _kept(self, write: Callable[[], object]) -> None:
        """Write to the store of batches, and try again while the store, or the database of `confirm`, does not answer."""
        for wait_s in _TRIES_S:
            try:
                await in_thread(write)
                return
            except DubstageError as problem:
                if not problem.retryable:
                    raise
            await asyncio.sleep(wait_s)
        await in_thread(write)
