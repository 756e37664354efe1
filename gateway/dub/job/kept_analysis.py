"""The analysis of a footage, kept for further dubs (languages, takes, other options) and enrolments.

A dub leaves the tracked faces, the features of the footage's own sound, and the people who were learned, in a folder of jobs. A dub
of the same footage takes them over (people: with the same method and networks), and gives the same bytes as alone. Dubs that
begin meanwhile wait. In this module, an enrolment counts as a dub. It takes over people whom dubs have learned, but leaves none.

The folder is a job of the kind `analysis` (`dubstage jobs`): it expires after its last use, counts as a job of every dubbed actor,
and an erasure of one of these actors, or of a person who was enrolled from the footage, deletes the folder.

A dub never fails because an analysis cannot be kept, taken over or removed: the log says why.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import structlog

from gateway.async_utilities import cancel_all, in_thread
from gateway.dub.learn.enrol import EnrolledActor, actor_arrays
from gateway.dub.progress import OnProgress
from gateway.dub.request.dub_request import FileVersion, check_unchanged
from gateway.dub.state.disk_needs import DiskNeed, check_disks, on_disk_of
from gateway.dub.state.journal import BlobLedger, Journal
from gateway.dub.state.records import read_note, write_note
from gateway.dub.state.removal import remove_job, remove_locked
from gateway.dub.state.workspace import (
    ANALYSIS,
    FOOTAGE_PASSES,
    JOURNAL,
    LOCK,
    JobRunningError,
    Workspace,
    describe_job,
    is_analysis,
    is_whole,
    lock_folder,
    locked_in_thread,
)
from services.common.errors import ActorError, DubstageError, InvalidRequestError, StorageFullError
from services.common.store.artefacts import ArtefactStore
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.convert import ref_from_proto

WAIT: Final = "wait for a dub"
"""Step in which a dub waits for another one that analyses the footage."""
_LOOK_S: Final = 0.25
"""Seconds between two looks whether another dub has analysed the footage."""
_BEAT_S: Final = 5.0
"""Seconds between two signs of life of the dub that analyses."""
_DEAD_S: Final = 60.0
"""Seconds without a sign of life after which a dub that waits analyses for itself: the process that analyses is paused."""
P = ParamSpec("P")
T = TypeVar("T")
_log = structlog.stdlib.get_logger("dubstage.jobs")


TRAINED: Final = "trained.json"
"""File of a kept analysis with the methods whose networks were adapted to a kept person. Estimates of dubs read the file."""


def trained_methods(folder: Path) -> frozenset[str]:
    """Return the names of the methods whose networks were adapted to a person of a kept analysis."""
    methods = (read_note(folder / TRAINED) or {}).get("methods")
    return frozenset(methods) if isinstance(methods, list) else frozenset()


@dataclass(frozen=True, slots=True)
class Footage:
    """Footage that is analysed.

    Attributes:
        name: name of the file, for `dubstage jobs`.
        sha256: digest of the file, by which an erasure finds what was made of a person's footage.
    """

    name: str
    sha256: str


@dataclass(eq=False)
class KeptAnalysis:
    """The kept analysis of one footage, as one dub uses it. `shared_analysis` makes the object.

    Attributes:
        folder: the kept folder; None: this dub keeps and takes over nothing.
        footage: the footage.
        store: artefacts of the journal.
        ledger: counts blobs for the dub, and for the kept folder.
        own: folder of the dub.
        is_adopted: whether the dub took over the tracked faces.
        has_waited: whether the dub waited for another one.
    """

    folder: Path | None
    footage: Footage
    store: ArtefactStore
    ledger: BlobLedger
    own: Path
    is_adopted: bool = False
    has_waited: bool = False
    _lock: int | None = field(default=None, repr=False)

    async def keep(self, workspace: Workspace) -> None:
        """Keep the finished passes over the footage that are not kept yet, and let dubs that wait go on.

        Args:
            workspace: the dub's open folder.
        """
        try:
            await self.publish(workspace)
        finally:
            self.release()

    async def publish(self, workspace: Workspace) -> None:
        """Keep the finished passes over the footage that are not kept yet. Dubs that wait go on waiting: for the people.

        Args:
            workspace: the dub's open folder.
        """
        folder = self.folder
        if folder is None:
            return
        damaged = self.is_adopted and bool(workspace.redone_passes & FOOTAGE_PASSES)

        def publish() -> None:
            with self._turn_now() as is_mine:
                if damaged and is_mine:
                    # The next dub keeps its own analysis.
                    remove_locked(folder, self.ledger, self.store)
                elif is_mine:
                    workspace.lend_analysis(folder)

        await in_thread(_logged, "analysis_not_kept", folder, publish)

    async def check_file(self, path: Path, version: FileVersion | None) -> None:
        """Check that the footage still has its digest. If not, remove what is kept under the digest: it may be of other pictures.

        Args:
            path: the footage.
            version: version of the file before its digest was computed.

        Raises:
            InvalidRequestError, MediaUnsupportedError: as `check_unchanged`.
        """
        try:
            await in_thread(check_unchanged, path, version, self.footage.sha256)
        except InvalidRequestError:
            if self.folder is not None:
                await in_thread(_logged, "analysis_not_removed", self.folder, self._remove, self.folder)
            raise

    def _remove(self, folder: Path) -> None:
        with self._turn_now() as is_mine:
            if is_mine:
                remove_locked(folder, self.ledger, self.store)

    async def find_actor(self, step: str, decode: Callable[[NamedArrays], EnrolledActor]) -> EnrolledActor | None:
        """Return a person whom another dub has learned from the footage, and count the artefacts for this dub. None: no dub has.

        Args:
            step: key of the enrolment.
            decode: as for `Journal.find`.
        """
        folder = self.folder
        if folder is None:
            return None

        def find() -> EnrolledActor | None:
            if not (folder / JOURNAL / step).exists():
                return None
            actor = Journal(folder / JOURNAL, self.store).find(step, decode)
            return actor if actor is not None and self._hold(self.own, actor) else None

        return await in_thread(_logged, "person_not_taken_over", folder, find)

    async def keep_actor(self, step: str, actor: EnrolledActor, *, trained_for: str) -> None:
        """Keep a person whom this dub has learned, unless another dub keeps something just now.

        Args:
            step: key of the enrolment.
            actor: the person.
            trained_for: name of the method whose networks were adapted to the person; empty: none were.
        """
        folder = self.folder
        if folder is None:
            return

        def record() -> None:
            with self._turn_now() as is_mine:
                if is_mine and self._hold(folder, actor):
                    journal = Journal(folder / JOURNAL, self.store, partial(self.ledger.hold, folder))
                    journal.record(step, *actor_arrays(actor))
                    if trained_for:
                        write_note(folder / TRAINED, {"methods": sorted({*trained_methods(folder), trained_for})})

        await in_thread(_logged, "person_not_kept", folder, record)

    def begin(self) -> bool:
        """Write down whose the folder is, before anything is kept in it, and return True. Blocks.

        Raises:
            DubstageError: the database cannot be used, the actor was erased, or no space is left.
        """
        folder = self.folder
        assert folder is not None, "the analysis is kept"
        self.ledger.keep(folder, self.footage.sha256)
        describe_job(folder, {"kind": ANALYSIS, "footage": self.footage.name, "actor": self.ledger.actor_id})
        return True

    def release(self) -> None:
        """Let dubs that wait go on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _turn_now(self) -> Iterator[bool]:
        """Give whether this dub may write to the kept folder: the folder is locked inside the block, and was not removed."""
        folder, handle = self.folder, self._lock
        assert folder is not None, "the analysis is kept"
        if handle is not None:
            yield True
            return
        try:
            handle = lock_folder(folder, make=False)
        except (InvalidRequestError, FileNotFoundError):
            yield False
            return
        try:
            yield is_analysis(folder)
        finally:
            os.close(handle)

    def _hold(self, folder: Path, actor: EnrolledActor) -> bool:
        """Count the artefacts of a person for a folder, and return whether all of them are there."""
        return all(self.ledger.hold(folder, ref_from_proto(ref, "artefact")) for ref in actor.refs.values())


@asynccontextmanager
async def shared_analysis(
    folder: Path | None,
    footage: Footage,
    workspace: Workspace,
    store: ArtefactStore,
    ledger: BlobLedger,
    on_progress: OnProgress,
) -> AsyncIterator[KeptAnalysis]:
    """Give the kept analysis of a footage to a dub: taken over, or to be made by this dub while others wait.

    Args:
        folder: folder of the analysis among the jobs; None: nothing is kept or taken over.
        footage: the footage.
        workspace: the dub's open folder, which gets what is taken over.
        store: artefacts of people.
        ledger: counts the blobs of the dub.
        on_progress: called when the dub begins to wait, with the step WAIT, and when the wait ends.
    """
    kept = KeptAnalysis(folder, footage, store, ledger, workspace.folder)
    if folder is None:
        yield kept
        return
    await _take_turn(kept, folder, on_progress)
    if kept.has_waited:
        on_progress(WAIT, 1, 1)
    if kept._lock is None:
        kept.folder = None
        yield kept
        return
    beats = asyncio.create_task(_beat(kept, folder / LOCK))
    erased = False
    try:
        kept.is_adopted = bool(await in_thread(_logged, "analysis_not_taken_over", folder, workspace.adopt_analysis, folder))
        is_begun = bool(await in_thread(_logged, "analysis_not_kept", folder, kept.begin))
        if not is_begun:
            kept.folder = None
            if not is_whole(folder):
                await in_thread(_removed_empty, folder, ledger, store)
        if kept.is_adopted or not is_begun:
            kept.release()
        yield kept
    except ActorError:
        erased = True
        raise
    finally:
        try:
            await cancel_all([beats])
            if kept._lock is not None and (erased or not is_whole(folder)):
                # This dub has failed before it kept the tracked faces, or an erasure waits for the lock.
                await in_thread(_logged, "analysis_not_removed", folder, remove_locked, folder, ledger, store)
        finally:
            kept.release()


def check_space(footage: Path, needs: Sequence[DiskNeed], jobs: Path | None, ledger: BlobLedger, store: ArtefactStore) -> None:
    """Check that there is room for what a dub writes. If there is too little, kept analyses on the same disk are removed. Blocks.

    Args:
        footage: the footage, for the message.
        needs: what will be written.
        jobs: folder of all jobs; None: the dub keeps no analyses.
        ledger: counts the blobs of the dub.
        store: artefacts of people.

    Raises:
        StorageFullError: a file system has too little free space.
    """
    if jobs is not None:
        make_space(footage, needs, jobs, ledger, store)
    check_disks(footage, needs)


def make_space(footage: Path, needs: Sequence[DiskNeed], jobs: Path, ledger: BlobLedger, store: ArtefactStore) -> None:
    """Remove the kept analyses if there is too little room on their disk for what will be written. Blocks.

    Args:
        footage, needs, jobs, ledger, store: as for `check_space`.
    """
    try:
        check_disks(footage, on_disk_of(jobs, needs))
    except StorageFullError:
        remove_analyses(jobs, ledger, store)


def remove_analyses(jobs: Path, ledger: BlobLedger, store: ArtefactStore) -> bool:
    """Remove all kept analyses among the jobs, but for those that a dub makes just now. Return whether some are gone. Blocks."""
    removed = False
    for folder in sorted(jobs.iterdir()):
        with suppress(OSError):
            if is_analysis(folder):
                removed |= bool(_logged("analysis_not_removed", folder, remove_job, folder, ledger, store))
    return removed


def forget_analysis(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> None:
    """Remove a kept analysis. Blocks."""
    _logged("analysis_not_removed", folder, remove_job, folder, ledger, store)


def _removed_empty(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> None:
    """Remove a kept folder in which nothing is kept, also while the database is away. Blocks."""
    _logged("analysis_not_removed", folder, remove_locked, folder, ledger, store)
    shutil.rmtree(folder, ignore_errors=True)


async def _take_turn(kept: KeptAnalysis, folder: Path, on_progress: OnProgress) -> None:
    """Wait until no other dub analyses the footage, and lock the folder, unless the other dub is paused."""
    began = time.time()
    while True:
        try:
            kept._lock = await locked_in_thread(folder)
            return
        except JobRunningError:
            if not kept.has_waited:
                on_progress(WAIT, 0, 1)
            kept.has_waited = True
            with suppress(OSError):
                if time.time() - max(began, (folder / LOCK).stat().st_mtime) > _DEAD_S:
                    _log.warning("analysis_is_stuck", job=folder.name)
                    return
        except (DubstageError, OSError) as problem:
            _log.warning("analysis_not_taken_over", job=folder.name, problem=str(problem))
            return
        await asyncio.sleep(_LOOK_S)


async def _beat(kept: KeptAnalysis, lock: Path) -> None:
    """Show that this process works, until the lock is released."""
    while kept._lock is not None:
        with suppress(OSError):
            os.utime(lock)
        await asyncio.sleep(_BEAT_S)


def _logged(event: str, folder: Path, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Return what `work` returns; None: the work failed, and the log says why. Blocks."""
    try:
        return work(*args, **kwargs)
    except (DubstageError, OSError) as problem:
        _log.warning(event, job=folder.name, problem=str(problem))
        return None
