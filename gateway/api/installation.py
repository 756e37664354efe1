"""What one gateway process holds for itself of each tenant: the data folder and the database of actors."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.actors.store import ActorStore
from gateway.api.error_names import ErrorNames
from gateway.api.gates import gate_of
from gateway.api.job_context import JobContext
from gateway.api.local_media import Media
from gateway.database.engine import may_be_shared
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.private_files import cannot_use, data_folder
from gateway.provenance.opening import open_sealer
from gateway.settings import GatewaySettings
from gateway.tenants.limits import Limits
from services.common.errors import InvalidRequest
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
        self._lock: int | None = _lock(settings.data_dir, together=may_be_shared(settings.database_url))
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


def _lock(folder: Path, *, together: bool) -> int:
    """Lock a data folder against other gateways, and return the open lock file.

    The lock ends with the process, however the process ends.

    Args:
        folder: the data folder.
        together: whether gateways that share a database may work in the folder together.
    """
    data_folder(folder)
    try:
        handle = os.open(folder / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise cannot_use(folder, problem) from problem
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidRequest(
            f"another gateway works in {folder}: end it, or set DUBSTAGE_DATA_DIR to another folder; only gateways that share a "
            "PostgreSQL may share a folder",
            field="DUBSTAGE_DATA_DIR",
        ) from None
    return handle
