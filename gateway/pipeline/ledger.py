"""Counting of artefacts. Equal footage gives equal artefacts, so several jobs and actors may use the same artefact."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, Protocol

from services.common.errors import BackendUnavailable
from services.common.store.artefacts import ArtefactRef

_NEWEST: Final = 64
"""Artefacts that may be stored while their entries are not in the journal yet, with room to spare."""

MOST_TRIES: Final = 5
"""Most times that a job makes an artefact that is gone when it is counted. Jobs that end at the same moment cost one try each."""


def lost_again() -> BackendUnavailable:
    """Return the error for an artefact that was gone after each of MOST_TRIES tries."""
    return BackendUnavailable(
        f"an artefact was gone right after it was stored, {MOST_TRIES} times: does another program delete files of the store?"
    )


class BlobLedger(Protocol):
    """Counter of the artefacts of jobs. All methods block."""

    @property
    def actor_id(self) -> str:
        """Id of the dubbed actor; empty: the job learns the person from its own footage."""
        ...

    def begin(self, folder: Path) -> None:
        """Count a job that begins or continues in this folder."""
        ...

    def hold(self, folder: Path, ref: ArtefactRef) -> bool:
        """Count an artefact that the job of this folder has made. Return whether the artefact is there.

        The end of another job may have deleted the artefact before it was counted. The job makes the artefact again then.
        """
        ...

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return those artefacts of the job of this folder, and of `refs`, that no actor and no other job uses. Nothing changes."""
        ...

    def unused(self, folder: Path, refs: Sequence[ArtefactRef]) -> AbstractContextManager[Sequence[ArtefactRef]]:
        """Give those of a few artefacts that no actor and no other job uses. No other job counts them before the context ends."""
        ...

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Forget the job of this folder, and return those of its artefacts, and of `refs`, that nothing else uses."""
        ...

    def confirm(self) -> None:
        """Check that the job may give its film a name.

        Raises Cancelled if another process does the job now, and another DubstageError if the person was erased or the consent
        has ended.
        """
        ...


class OwnBlobs:
    """Ledger of a job that shares no artefacts."""

    actor_id = ""

    def __init__(self) -> None:
        # Earlier artefacts are in the journal of the job, whose artefacts callers pass. A list of all would grow with the film.
        self._held: deque[ArtefactRef] = deque(maxlen=_NEWEST)

    def begin(self, folder: Path) -> None:
        """As BlobLedger."""

    def hold(self, folder: Path, ref: ArtefactRef) -> bool:
        """As BlobLedger."""
        self._held.append(ref)
        return True

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """As BlobLedger."""
        return [*refs, *self._held]

    def unused(self, folder: Path, refs: Sequence[ArtefactRef]) -> AbstractContextManager[Sequence[ArtefactRef]]:
        """As BlobLedger."""
        return nullcontext(refs)

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """As BlobLedger."""
        return [*refs, *self._held]

    def confirm(self) -> None:
        """As BlobLedger."""
