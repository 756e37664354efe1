"""An installation made from the file of a backup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Connection, delete, select
from sqlalchemy.orm import Session

from gateway.actors.installation import Installation
from gateway.actors.store import take_store
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog, AuditRow
from gateway.audit.protection import SETTINGS_WORK
from gateway.backup.archive import (
    KEYS,
    BackupManifest,
    as_base,
    check_keys,
    keep_keys,
    members,
    read_manifest,
)
from gateway.backup.rows import blobs_of, copy_rows, fitting, kept_tables, rows_of
from gateway.database.session import Database
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

CHECK: Final = "checking"
RESTORE: Final = "restoring blobs"


def restore_backup(
    installation: Installation,
    file: Path,
    *,
    bases: Sequence[Path] = (),
    on_blob: Callable[[str, int, int], None] = lambda *_: None,
) -> BackupManifest:
    """Fill an empty installation from a backup, and return the backup's manifest with the blobs of all files that were restored.

    The whole file and its bases are checked before anything is written. Then the database becomes the owner of the artefact store,
    the blobs are stored, and at last all rows in one transaction. So an interrupted restore leaves no actor, and the same command
    goes on.

    Args:
        installation: the open stores of the installation, opened without a claim of the artefact store.
        file: the backup.
        bases: all backups that the file is based on, in any order.
        on_blob: called with the name of the pass, blobs done, and all blobs.

    Raises:
        InvalidRequestError: the file or a base is no backup or is damaged, a base is missing, the installation holds actors or
            operations, a gateway works with its database, its artefact store has another URL, or it has other keys (KEYS).
        StorageRefusedError: the artefact store belongs to another database than the backup's.
        StorageFullError, StorageRefusedError, BackendUnavailableError: a store or a key cannot be written.
    """
    manifest = read_manifest(file)
    database = installation.actors.database
    if manifest.artefacts_url != installation.artefacts.url:
        raise InvalidRequestError(
            f"the actors of {file} name blobs in the artefact store {manifest.artefacts_url}, and DUBSTAGE_ARTEFACTS_URL names "
            f"{installation.artefacts.url} here: set it to the store of the backup",
            field="DUBSTAGE_ARTEFACTS_URL",
        )
    _check_bases(file, manifest, bases)
    with rows_of(file, installation.settings.data_dir) as rows:
        needed = set(blobs_of(rows))
        database.claim(alone=True)
        try:
            _check_empty(database)
            keys = _keys(file, manifest)
            for number, _ in enumerate(_blobs([*bases, file], set(needed)), 1):
                on_blob(CHECK, number, len(needed))
            check_keys(installation.settings.data_dir, keys)
            # Before the blobs: no other database may delete them.
            take_store(installation.artefacts, database, manifest.database)
            blob_bytes = 0
            for number, content in enumerate(_blobs([*bases, file], set(needed)), 1):
                blob_bytes += installation.artefacts.put_bytes(content.read()).size_bytes
                on_blob(RESTORE, number, len(needed))
            keep_keys(installation.settings.data_dir, keys)
            with fitting(file):
                _insert(database, rows)
        finally:
            database.release_claim()
    return replace(manifest, blobs=len(needed), blob_bytes=blob_bytes)


def _check_bases(file: Path, manifest: BackupManifest, bases: Sequence[Path]) -> None:
    """Check that the bases are those that the manifest names."""
    named = {base.sha256: base for base in manifest.bases}
    given = {as_base(base).sha256: base for base in bases}
    if strange := [str(path) for sha256, path in given.items() if sha256 not in named]:
        raise InvalidRequestError(f"{file} is not based on {', '.join(strange)}: leave it out", field="base")
    if missing := [base.created_at for sha256, base in named.items() if sha256 not in given]:
        raise InvalidRequestError(
            Text(
                "{file} holds only the blobs that are newer than its bases: give the backups of {missing} with {base}",
                file=file,
                missing=", ".join(missing),
                base=Option("base"),
            ),
            field="base",
        )


def _keys(file: Path, manifest: BackupManifest) -> dict[str, bytes]:
    """Return the keys of a backup by name."""
    # The keys come before the blobs.
    with closing(members(file)) as entries:
        return {name: content.read() for name, content in islice(entries, len(manifest.members)) if name in KEYS}


def _blobs(files: Iterable[Path], needed: set[str]) -> Iterator[IO[bytes]]:
    """Yield the needed blobs, each once, and check all files whole.

    Args:
        files: backups.
        needed: SHA-256 of the blobs; empty in the end.

    Raises:
        InvalidRequestError: a file is damaged, or a blob is in none of the files.
    """
    for file in files:
        for name, content in members(file):
            if name in needed:
                needed.discard(name)
                yield content
    if needed:
        raise InvalidRequestError(f"the backup is damaged: {len(needed)} blobs are in none of its files", field="file")


def _check_empty(database: Database) -> None:
    with database.reading() as session:
        for table in kept_tables():
            if table.name == AuditRow.__tablename__ and _is_fresh(session):
                continue
            if session.execute(select(table).limit(1)).first() is not None:
                raise InvalidRequestError(
                    f"the database {database.where} is not empty: its table {table.name} has rows. Restore into a new "
                    "installation: another DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL",
                    field="DUBSTAGE_DATABASE_URL",
                )


def _is_fresh(session: Session) -> bool:
    """Return whether the audit log has no entry but those of a gateway that was started and has done nothing."""
    return session.scalar(select(AuditRow.sequence).where(AuditRow.work != SETTINGS_WORK).limit(1)) is None


def _insert(database: Database, rows: Connection) -> None:
    """Insert the rows of a backup, all or none."""
    with database.writing() as session:
        connection = session.connection()
        database.use_schema(connection)
        # A chain has one beginning: that of the backup.
        session.execute(delete(AuditRow))
        for table in kept_tables():
            copy_rows(rows, connection, table)
        AuditLog(database).append(session, AuditEvent(event=EventKind.BACKUP_RESTORED))
