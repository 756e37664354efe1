"""A job's blobs in the actors' database. When a job is deleted, blobs that actors or other jobs count stay."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final

from gateway.actors.job_blobs import of_footage
from gateway.actors.store import ActorStore
from gateway.audit.entries import AuditEvent, EventKind, batch_work
from gateway.audit.work import WorkRecord, recorded
from gateway.consent.record import Consent, digest_of
from services.common.errors import TransientError
from services.common.store.artefacts import ArtefactRef

_TRIES_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further look at a database that does not answer."""


class JobLedger:
    """`BlobLedger` of one job. All methods block.

    Args:
        actors: store of actors.
        actor_ids: actors that are dubbed; none: the job enrols the people for itself. An erasure of any of them ends the job.
        belongs_to: name of the gateway's operation, or `actors/ID` for an enrolment of the command line; empty: neither.
        consents: consent records that allow the job.
        confirm: raises WorkCancelledError if another gateway does the operation now.
    """

    def __init__(
        self,
        actors: ActorStore,
        actor_ids: Sequence[str] = (),
        belongs_to: str = "",
        *,
        consents: Sequence[Consent | None] = (),
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self._audit = actors.audit
        self._jobs = actors.jobs
        self._rules = actors.consents
        self._consents = consents
        # Work without an enrolled person has rows too.
        self._actor_ids = tuple(actor_ids) or ("",)
        self._belongs_to = belongs_to
        self._confirm = confirm
        self._folder: Path | None = None

    @property
    def actor_id(self) -> str:
        """First actor that is dubbed; empty: the job enrols the people for itself."""
        return self._actor_ids[0]

    def begin(self, folder: Path) -> None:
        """Store that the job begins. An erasure of the actor deletes the job's folder.

        Raises:
            ActorError: the actor was erased, or is being erased now.
        """
        for actor_id in self._actor_ids:
            self._jobs.begin(folder, actor_id=actor_id, belongs_to=self._belongs_to)
        self._folder = folder

    def keep(self, folder: Path, footage_sha256: str) -> None:
        """Store that the job keeps a folder of what it made of footage for other jobs. An erasure of the actor, or of a person who
        was enrolled from the footage, deletes the folder.

        Raises:
            ActorError: the actor was erased, or is being erased now.
        """
        for actor_id in self._actor_ids:
            self._jobs.begin(folder, actor_id=actor_id, belongs_to=of_footage(footage_sha256))

    def check(self) -> None:
        """Check that the job may go on: its consent holds, and its actor is still enrolled, if the job has begun.

        Raises:
            ActorError: the actor was erased, or is being erased now.
            ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: the consent does not hold any more.
        """
        if self._folder is not None:
            for actor_id in self._actor_ids:
                self._jobs.check(self._folder, actor_id)
        self.check_consent()

    def check_consent(self) -> None:
        """Check that the consent for the job still holds.

        Raises:
            ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: the consent does not hold any more.
        """
        for actor_id in self._actor_ids:
            self._rules.check_lasting(self._consents, actor_id=actor_id)

    def recorded(self, method: str, *, batch: str = "", row: int = 0) -> AbstractAsyncContextManager[WorkRecord]:
        """Record the beginning of a dub that is no operation in the audit log, and its end when the context ends.

        Args:
            method: method of the dub.
            batch: name of the batch that the dub belongs to, whose caller the entries name; empty: none.
            row: row of the batch, from 0.
        """
        begun = AuditEvent(
            event=EventKind.DUB_BEGUN,
            work=f"dubs/{secrets.token_hex(16)}",
            actor_ids=tuple(filter(None, self._actor_ids)),
            consents=tuple(digest_of(record) for record in self._consents if record is not None),
            details={"method": method, **({"batch": batch, "row": row} if batch else {})},
        )
        return recorded(self._audit, begun, continues=batch_work(batch) if batch else "")

    def hold(self, folder: Path, ref: ArtefactRef) -> bool:
        """Count a blob that the job has stored, and return whether the blob is there. See JobBlobs.hold.

        Raises:
            ActorError: an actor was erased meanwhile. The blob was deleted again.
            WorkCancelledError: the job was given up meanwhile. The blob was deleted again.
        """
        return self._jobs.hold(folder, ref, actor_ids=self._actor_ids)

    def only_here(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs, of the job and of `refs`, that no actor and no other job counts."""
        return self._jobs.only_of(folder, refs)

    def unused(self, folder: Path, refs: Sequence[ArtefactRef]) -> AbstractContextManager[Sequence[ArtefactRef]]:
        """Give the blobs among `refs` that no actor and no other job counts. No job counts them before the context ends."""
        return self._jobs.unused(refs, but=folder)

    def release(self, folder: Path) -> Sequence[ArtefactRef]:
        """Forget the job, and return the blobs that no actor and no job counts any more."""
        return self._jobs.uncounted(self._jobs.release(folder))

    def confirm(self) -> None:
        """Check that the operation is still this gateway's, and that the job may go on. Waits for a database that restarts.

        Raises:
            WorkCancelledError: another gateway does the operation now.
            ActorError, ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: as `check`.
        """
        for wait_s in _TRIES_S:
            try:
                return self._confirm_once()
            except TransientError:
                time.sleep(wait_s)
        return self._confirm_once()

    def _confirm_once(self) -> None:
        self._confirm()
        self.check()
