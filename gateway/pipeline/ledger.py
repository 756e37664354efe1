"""Who uses which blobs: equal footage gives equal blobs, so that several jobs and actors may share one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from services.common.artefacts import ArtefactRef


class BlobLedger(Protocol):
    """Counts the blobs of jobs. All methods block."""

    @property
    def actor_id(self) -> str:
        """Who is dubbed; empty: an actor made in passing."""
        ...

    def begin(self, folder: Path) -> None:
        """A job begins, or goes on, in this folder."""
        ...

    def hold(self, folder: Path, ref: ArtefactRef) -> None:
        """The job of this folder made a blob."""
        ...

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs of the job in this folder and of `refs` that no actor and no other job counts; nothing is changed."""
        ...

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """The job has ended; which of `refs`, and of what it held, nobody else counts."""
        ...


class OwnBlobs:
    """The ledger of one job alone."""

    actor_id = ""

    def __init__(self) -> None:
        self._held: list[ArtefactRef] = []

    def begin(self, folder: Path) -> None:
        """As BlobLedger."""

    def hold(self, folder: Path, ref: ArtefactRef) -> None:
        """As BlobLedger."""
        self._held.append(ref)

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """As BlobLedger."""
        return [*refs, *self._held]

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """As BlobLedger."""
        return [*refs, *self._held]
