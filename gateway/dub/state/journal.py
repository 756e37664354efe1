"""Finished work of a job, kept so that a killed job continues where it ended.

A step (an enrolment, a rendered window) has a key: the digest of everything that its result depends on. The result is an artefact
in the artefact store. The journal has one small file per step, written after the artefact and renamed into place.

Equal footage gives equal artefacts, so several jobs and actors may use the same artefact. The journal counts the users of an
artefact.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from gateway.dub.state.disk import job_folder
from services.common.array_types import Array
from services.common.errors import ArtefactCorruptError, ArtefactNotFoundError, BackendUnavailableError, InvalidRequestError
from services.common.files import write_whole
from services.common.store.artefacts import ArtefactRef, ArtefactStore, check_ref
from services.common.store.tensor_bytes import NamedArrays

_NEWEST: Final = 64
"""Artefacts that may be stored while their entries are not in the journal yet, with room to spare."""

MOST_TRIES: Final = 5
"""Most times that a job makes an artefact that is gone when it is counted. Jobs that end at the same moment cost one try each."""
T = TypeVar("T")
_MOST_BYTES: Final = 64 << 10
"""Longest entry that is read, bytes."""
_log = structlog.stdlib.get_logger("dubstage.jobs")


def artefact_lost_error() -> BackendUnavailableError:
    """Return the error for an artefact that was gone after each of MOST_TRIES tries."""
    return BackendUnavailableError(
        f"an artefact was gone right after it was stored, {MOST_TRIES} times: does another program delete files of the store?"
    )


class BlobLedger(Protocol):
    """Counter of the blobs of jobs. All methods block."""

    @property
    def actor_id(self) -> str:
        """Id of the dubbed actor; empty: the job learns the person from its own footage."""
        ...

    def begin(self, folder: Path) -> None:
        """Count a job that begins or continues in this folder."""
        ...

    def keep(self, folder: Path, footage_sha256: str) -> None:
        """Count a folder that this job keeps for others: an erasure of the actor, or of a person who was enrolled from the footage,
        deletes the folder."""
        ...

    def hold(self, folder: Path, ref: ArtefactRef) -> bool:
        """Count the blob of an artefact that the job of this folder has made. Return whether the blob is there.

        The end of another job may have deleted the blob before it was counted. The job makes the artefact again then.
        """
        ...

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs of the job of this folder, and of `refs`, that no actor and no other job uses. Nothing changes."""
        ...

    def unused(self, folder: Path, refs: Sequence[ArtefactRef]) -> AbstractContextManager[Sequence[ArtefactRef]]:
        """Give the blobs among `refs` that no actor and no other job uses. No other job counts them before the context ends, and
        the job of this folder does not count them afterwards."""
        ...

    def release(self, folder: Path) -> Sequence[ArtefactRef]:
        """Forget the job of this folder, and return the blobs of the job that nothing else uses."""
        ...

    def confirm(self) -> None:
        """Check that the job may give its video a name.

        Raises WorkCancelledError if another process does the job now, and another DubstageError if the person was erased or the
        consent has ended.
        """
        ...


class OwnBlobs:
    """Ledger of a job that shares no blobs."""

    actor_id = ""

    def __init__(self) -> None:
        # Earlier blobs are in the journal of the job, which callers pass. A list of all would grow with the video.
        self._held: deque[ArtefactRef] = deque(maxlen=_NEWEST)

    def begin(self, folder: Path) -> None:
        """See BlobLedger."""

    def keep(self, folder: Path, footage_sha256: str) -> None:
        """See BlobLedger."""

    def hold(self, folder: Path, ref: ArtefactRef) -> bool:
        """See BlobLedger."""
        self._held.append(ref)
        return True

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """See BlobLedger."""
        return [*refs, *self._held]

    @contextmanager
    def unused(self, folder: Path, refs: Sequence[ArtefactRef]) -> Iterator[Sequence[ArtefactRef]]:
        """See BlobLedger."""
        yield refs
        self._held = deque((ref for ref in self._held if ref not in refs), maxlen=_NEWEST)

    def release(self, folder: Path) -> Sequence[ArtefactRef]:
        """See BlobLedger."""
        return list(self._held)

    def confirm(self) -> None:
        """See BlobLedger."""


def step_key(kind: str, **depends_on: object) -> str:
    """Return the key of a step: SHA-256 of its kind and of all values that its result depends on (JSON values), hexadecimal."""
    text = json.dumps({"kind": kind, **depends_on}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Finished steps of one job.

    Attributes:
        computed: number of steps that this run recorded.
        reused: number of finished steps that this run found.
        redone: number of finished steps of an earlier run whose result cannot be used.

    Args:
        hold: called with each result's artefact before the entry is written; returns False if the artefact is to be stored again,
            and raises an error if the job must stop.
    """

    def __init__(self, folder: Path, store: ArtefactStore, hold: Callable[[ArtefactRef], bool] = lambda _: True) -> None:
        self._folder = folder
        self._store = store
        self._hold = hold
        self.computed = 0
        self.reused = 0
        self.redone = 0
        with job_folder(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def beside(self) -> Journal:
        """Return a journal of the same job that counts its steps by itself."""
        return Journal(self._folder, self._store, self._hold)

    def find(self, key: str, decode: Callable[[NamedArrays], T]) -> T | None:
        """Return the result of a finished step; None: the step has to be done.

        A step does not count as finished if its entry is damaged or of another store, or if its artefact is missing, damaged or of
        another kind.

        Args:
            key: key of the step.
            decode: returns the result that the arrays of the step hold. Raises ValueError if the arrays are not those of such a
                step, and ArtefactNotFoundError or ArtefactCorruptError if an artefact that they name is missing or damaged.
        """
        path = self._folder / key
        if not path.exists():
            return None
        try:
            ref = _ref(path)
            if ref is None:
                raise ValueError("the entry is no reference")
            decoded = decode(self._store.get_arrays(ref))
        except (ArtefactNotFoundError, ArtefactCorruptError, InvalidRequestError, ValueError) as problem:
            _log.warning("journal_entry_unusable", job=self._folder.parent.name, step=key, problem=str(problem))
            self.redone += 1
            return None
        self.reused += 1
        return decoded

    def record(self, key: str, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
        """Store the result of a step.

        Raises:
            StorageFullError: no space is left; the journal has not changed.
            BackendUnavailableError: the artefact is gone each time it was stored; the journal has not changed.
            DubstageError: from `hold`; the journal has not changed.
        """
        for _ in range(MOST_TRIES):
            ref = self._store.put_arrays(arrays, metadata)
            if self._hold(ref):
                break
        else:
            raise artefact_lost_error()
        entry = json.dumps({"uri": ref.uri, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        with job_folder(self._folder):
            write_whole(self._folder / key, entry.encode())
        self.computed += 1

    def refs(self) -> Iterator[ArtefactRef]:
        """Yield the references of the results of all finished steps, in any store."""
        return journalled(self._folder)


def journalled(folder: Path) -> Iterator[ArtefactRef]:
    """Yield the references in the journal of a folder. Damaged entries are left out. A missing folder has no entries."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        ref = None if path.name.startswith(".") else _ref(path)
        if ref is not None:
            yield ref


def _ref(path: Path) -> ArtefactRef | None:
    try:
        with path.open("rb") as file:
            entry = json.loads(file.read(_MOST_BYTES))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    match entry:
        case {"uri": str(uri), "sha256": str(sha256), "size_bytes": int(size_bytes)} if type(size_bytes) is int:
            ref = ArtefactRef(uri, sha256, size_bytes)
            try:
                check_ref(ref)
            except InvalidRequestError:
                # One flipped bit makes most digests none. Nothing else would take such a reference.
                return None
            return ref
    return None
