"""A job's blobs in the actors' database: what it shares with actors and with other jobs is not deleted with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.actors.store import ActorStore
from services.common.artefacts import ArtefactRef


class JobLedger:
    """`BlobLedger` of one job.

    Args:
        actors: the database.
        actor_id: who is dubbed; empty: an actor made in passing.
    """

    def __init__(self, actors: ActorStore, actor_id: str = "") -> None:
        self._actors = actors
        self._actor_id = actor_id

    def begin(self, folder: Path) -> None:
        """The folder is erased with the actor.

        Raises:
            ActorNotReady: the actor was erased.
        """
        if self._actor_id:
            self._actors.note_job(self._actor_id, folder)

    def hold(self, folder: Path, ref: ArtefactRef) -> None:
        """Count a blob for the job."""
        self._actors.hold(folder, ref)

    def release(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Forget the job; returns what nobody counts any more."""
        return self._actors.uncounted([*refs, *self._actors.release(folder)])
