"""What one gateway process holds for itself of each tenant: the data folder and the database of actors."""

from __future__ import annotations

import os

from gateway.actors.store import ActorStore
from gateway.api.data_lock import lock_data_folder
from gateway.api.error_names import ErrorNames
from gateway.api.gates import gate_of
from gateway.api.job_context import JobContext
from gateway.api.local_media import Media
from gateway.database.engine import may_be_shared
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.provenance.opening import open_sealer
from gateway.settings import GatewaySettings
from gateway.tenants.limits import Limits
from services.common.store.artefacts import ArtefactStore


class Installation:
    """Data folder and database, until `close`. With SQLite, both are locked against other gateways.

    Attributes:
        context: what the operations work with.

    Args:
        settings: settings of the process, with the places of the tenant.
        limits: limits of all tenants.
        beside: another tenant's, whose connections to the database are used; None: there are none yet.

    Raises:
        InvalidRequest: another gateway works in the data folder or with the SQLite file, or the media folder or the keys of consent
            records cannot be used.
        StorageRefused, BackendUnavailable: the data folder or the database cannot be used.
    """

    def __init__(self, settings: GatewaySettings, limits: Limits, *, beside: Installation | None = None) -> None:
        self._lock: int | None = lock_data_folder(settings.data_dir, together=may_be_shared(settings.database_url))
        self._actors: ActorStore | None = None
        self._media: Media | None = None
        try:
            others = beside.context.actors if beside is not None else None
            self._actors = actors = ActorStore(settings, beside=others)
            actors.consents.check_settings()
            actors.database.claim()
            artefacts = ArtefactStore(settings.artefacts_url)
            self._media = media = Media.of(settings)
            self.context: JobContext = JobContext(
                actors=actors,
                artefacts=artefacts,
                media=media,
                jobs=open_jobs_folder(settings.data_dir),
                threads=settings.compute_threads,
                names=ErrorNames(settings, actors.database.where, artefacts.url),
                max_job_bytes=settings.max_job_bytes,
                sealer=open_sealer(settings),
                gate=gate_of(limits, actors.database),
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database, and let other gateways use the data folder. Blocks."""
        if self._media is not None:
            self._media.close()
        if self._actors is not None:
            self._actors.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
