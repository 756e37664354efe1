"""A job's blobs in the actors' database: what it shares with actors and with other jobs is not deleted with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.actors.store import ActorStore
from services.common.artefacts import ArtefactRef


class JobLedger:
    """`BlobLedger` of one job. All methods block.

    Args:
        actors: the database.
        actor_id: who is dubbed; empty: an actor made in passing.
        belongs_to: name of the gateway's operation, or `actors/ID` where this person is being enrolled; empty: neither.
    """

    def __init__(self, actors: ActorStore, actor_id: str = "", belongs_to: str = "") -> None:
        self._jobs = actors.jobs
        self._actor_id = actor_id
        self._belongs_to = belongs_to
        self._folder: Path | None = None

    @property
    def actor_id(self) -> str:
        """Who is dubbed; empty: an actor made in passing."""
        return self._actor_id

    def begin(self, folder: Path) -> None:
        """Write down that the job begins; its folder is erased with the actor.

        Raises:
            ActorNotReady: the actor was erased, or is being erased now.
        """
        self._jobs.begin(folder, actor_id=self._actor_id, belongs_to=self._belongs_to)
        self._folder = folder

    def check(self) -> None:
        """Raise ActorNotReady where the job has begun, and its actor was erased, or is being erased now."""
        if self._folder is not None:
            self._jobs.check(self._folder, self._actor_id)

    def hold(self, folder: Path, ref: ArtefactRef) -> None:
        """Count a blob that the job has put.

        Raises:
            ActorNotReady: the actor was erased meanwhile; the blob was deleted again.
            Cancelled: the job was given up meanwhile; the blob was deleted again.
        """
        self._jobs.hold(folder, ref, actor_id=self._actor_id)

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs of the job and of `refs` that no actor and no other job counts; nothing is changed."""
        return self._jobs.only_of(folder, refs)

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Forget the job; returns what nobody counts any more."""
        return self._jobs.uncounted([*refs, *self._jobs.release(folder)])
