"""Backup of an installation to one file."""

from __future__ import annotations

import hashlib
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from gateway.actors.receipts import now
from gateway.actors.workplace import Workplace
from gateway.audit.entry import Event, Happening
from gateway.backup.archive import FORMAT, ArchiveWriter, Manifest
from gateway.backup.keys import keys_in
from gateway.backup.rows import kept_tables, lines_of
from gateway.database import sqlite_file
from gateway.database.database import Database
from gateway.database.tables import ActorRow, LineageRow
from services.common.errors import ArtefactNotFound, BackendUnavailable, InvalidRequest
from services.common.store.artefacts import ArtefactRef
from services.common.store.full_disk import told_of_full_disk

STEP: Final = "copying blobs"
"""Name of the pass that copies blobs."""


def write_backup(
    place: Workplace,
    file: Path,
    *,
    without: frozenset[str] = frozenset(),
    overwrite: bool = False,
    on_blob: Callable[[str, int, int], None] = lambda *_: None,
) -> Manifest:
    """Write everything that the installation knows of its actors to one file, and return the file's manifest.

    The rows are those of one moment. Dubs and enrolments may run meanwhile. Jobs that have not ended are not part of a backup.

    Args:
        place: open stores of the installation.
        file: tar to write, mode 0600: written under a temporary name, then renamed.
        without: ids of actors that are left out.
        overwrite: whether an existing file is replaced.
        on_blob: called with STEP, number of blobs copied, and number of all blobs.

    Raises:
        InvalidRequest: the file exists, its folder is missing or may not be written, or an actor to leave out does not exist.
        StorageFull: no space is left for the file.
        StorageRefused: a key of the installation cannot be read.
        BackendUnavailable: a person was erased while the backup ran, or a store does not answer.
        ArtefactCorrupt: a blob is damaged.
    """
    database = place.actors.database
    with _written_whole(file, overwrite=overwrite) as archive:
        # The moment ends before the blobs are copied: a gateway cannot write to SQLite's file meanwhile.
        with _moment(database) as connection:
            known = set(connection.scalars(select(ActorRow.actor_id)))
            _check_known(without, known)
            members = {f"tables/{table.name}.jsonl": lines_of(connection, table, without) for table in kept_tables()}
            refs = _blobs(connection, without)
        members |= keys_in(place.settings.data_dir)
        manifest = Manifest(
            format=FORMAT,
            dubstage=version("dubstage-suite"),
            created_at=now(),
            artefacts_url=place.artefacts.url,
            actors=len(known - without),
            blobs=len(refs),
            blob_bytes=sum(ref.size_bytes for ref in refs),
            members={name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
        )
        writer = ArchiveWriter(archive, manifest, members)
        for number, ref in enumerate(refs):
            on_blob(STEP, number, len(refs))
            try:
                writer.add_blob(ref.sha256, place.artefacts.get_bytes(ref))
            except ArtefactNotFound as problem:
                raise BackendUnavailable(
                    f"blob {ref.sha256} is gone: a person was erased while the backup ran, or somebody removed the blob; take the "
                    "backup again (`dubstage doctor` names actors without their blobs)"
                ) from problem
        on_blob(STEP, len(refs), len(refs))
    place.actors.audit.record(Happening(event=Event.BACKUP_WRITTEN, details={"actors": manifest.actors, "left_out": len(without)}))
    return manifest


def _check_known(without: frozenset[str], known: set[str]) -> None:
    """Check that all actors to leave out exist: a wrong id would leave the person in the backup."""
    unknown = sorted(without - known)
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise InvalidRequest(f"there is no actor {named} to leave out: `dubstage actor list` shows all", field="without")


@contextmanager
def _moment(database: Database) -> Iterator[Connection]:
    """Give a connection that sees the rows of one moment, whatever is written meanwhile."""
    with database.told():
        options = {"isolation_level": "REPEATABLE READ"} if database.shared else {sqlite_file.BEGIN: "DEFERRED"}
        with database.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection


def _blobs(connection: Connection, without: frozenset[str]) -> Sequence[ArtefactRef]:
    """Return the blobs of all actors, each once, in the order of their digests."""
    rows = connection.execute(
        select(LineageRow.sha256, LineageRow.uri, LineageRow.size_bytes, LineageRow.actor_id).order_by(LineageRow.sha256)
    )
    found = {row.sha256: ArtefactRef(row.uri, row.sha256, row.size_bytes) for row in rows if row.actor_id not in without}
    return list(found.values())


@contextmanager
def _written_whole(file: Path, *, overwrite: bool) -> Iterator[tarfile.TarFile]:
    """Give a tar that lies at `file` when the block has ended without an error. Otherwise nothing stays."""
    if os.path.lexists(file) and not (overwrite and file.is_file()):
        raise InvalidRequest(f"{file} exists: give another name, or replace the file with --overwrite", field="file")
    partial = file.with_name(f".{file.name[:100]}.{secrets.token_hex(8)}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise InvalidRequest(f"{file} cannot be written: {problem.strerror or problem}", field="file") from problem
    try:
        with told_of_full_disk(f"no space left for the backup {file}: free some, or give another disk", file):
            with os.fdopen(handle, "wb") as stream:
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    yield archive
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
