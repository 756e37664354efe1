"""Backup of an installation to one file."""

from __future__ import annotations

import io
import os
import re
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from gateway.actors.erasure import folders_of
from gateway.actors.installation import Installation
from gateway.audit.entries import AuditEvent, EventKind
from gateway.backup.archive import (
    DATABASE,
    FORMAT,
    ArchiveWriter,
    BackupManifest,
    BaseBackup,
    as_base,
    keys_in,
    read_manifest,
)
from gateway.backup.rows import blobs_of, moment, rows_in_file, rows_of
from gateway.database import upgrades
from gateway.database.tables import ActorRow
from gateway.dub.state.workspace import JOBS
from gateway.times import now
from services.common.errors import ArtefactNotFoundError, BackendUnavailableError, InvalidRequestError
from services.common.files import sha256_of, translating_full_disk
from services.common.locks import try_lock
from services.common.texts import Command, Option, Text

STEP: Final = "copying blobs"
"""Name of the pass that copies blobs."""
_PARTIAL: Final = re.compile(r"\..{1,100}\.[0-9a-f]{16}\.backup", re.DOTALL)
"""Matches the hidden name of a backup that is being written."""


def write_backup(
    installation: Installation,
    file: Path,
    *,
    without: frozenset[str] = frozenset(),
    base: Path | None = None,
    overwrite: bool = False,
    on_blob: Callable[[str, int, int], None] = lambda *_: None,
) -> BackupManifest:
    """Write everything that the installation knows of its actors to one file, and return the file's manifest.

    The rows are those of one moment. Dubs and enrolments may run meanwhile. Jobs that have not ended are not part of a backup.

    Args:
        installation: the open stores of the installation.
        file: tar to write, mode 0600: written under a temporary name, then renamed.
        without: ids of actors that are left out.
        base: earlier backup of the installation. Blobs that this file or its own bases hold are not written again. None: all blobs
            are written.
        overwrite: whether an existing file is replaced.
        on_blob: called with STEP, number of blobs copied, and number of all blobs.

    Raises:
        InvalidRequestError: the file exists, its folder is missing or may not be written, an actor to leave out does not exist, or
            the base is no backup of this installation.
        StorageFullError: no space is left for the file.
        StorageRefusedError: a key of the installation cannot be read, or a later version of dubstage has upgraded the tables.
        BackendUnavailableError: a person was erased while the backup ran, or a store does not answer.
        ArtefactCorruptError: a blob is damaged.
    """
    database = installation.actors.database
    bases = () if base is None else _bases(installation, base, file)
    with _written_whole(file, overwrite=overwrite) as archive, ExitStack() as files:
        with moment(database, file.parent) as connection:
            # A later version may have upgraded the tables since this process opened them.
            upgrades.check_revision(connection.scalar(select(upgrades.RECORD.c.version_num)) or "", database.where)
            enrolled = set(connection.scalars(select(ActorRow.actor_id)))
            _check_enrolled(without, enrolled)
            rows = files.enter_context(rows_in_file(connection, file.parent, _footage_of(installation, connection, without)))
            refs = list(blobs_of(connection, without).values())
        members = {DATABASE: rows}
        if base is not None:
            with rows_of(base, file.parent) as held_rows:
                held = blobs_of(held_rows)
            refs = [ref for ref in refs if ref.sha256 not in held]
        members |= {name: io.BytesIO(key) for name, key in keys_in(installation.settings.data_dir).items()}
        manifest = BackupManifest(
            format=FORMAT,
            dubstage=version("dubstage-suite"),
            created_at=now(),
            artefacts_url=installation.artefacts.url,
            actors=len(enrolled - without),
            blobs=len(refs),
            blob_bytes=sum(ref.size_bytes for ref in refs),
            members={name: _digest(content) for name, content in members.items()},
            database=database.id,
            revision=upgrades.head(),
            bases=bases,
        )
        writer = ArchiveWriter(archive, manifest, members)
        for number, ref in enumerate(refs):
            on_blob(STEP, number, len(refs))
            try:
                writer.add_blob(ref.sha256, installation.artefacts.get_bytes(ref))
            except ArtefactNotFoundError as problem:
                raise BackendUnavailableError(
                    f"blob {ref.sha256} is gone: a person was erased while the backup ran, or somebody removed the blob; take the "
                    "backup again (`dubstage doctor` names actors without their blobs)"
                ) from problem
        on_blob(STEP, len(refs), len(refs))
    installation.actors.audit.record(
        AuditEvent(event=EventKind.BACKUP_WRITTEN, details={"actors": manifest.actors, "left_out": len(without)})
    )
    return manifest


def _bases(installation: Installation, base: Path, file: Path) -> tuple[BaseBackup, ...]:
    """Return a base behind its own bases, after a check that it is a backup of this installation and not the file to write."""
    manifest = read_manifest(base)
    if (manifest.database, manifest.artefacts_url) != (installation.actors.database.id, installation.artefacts.url):
        raise InvalidRequestError(
            f"{base} is a backup of another installation: give a backup of the database "
            f"{installation.actors.database.where} and the artefact store {installation.artefacts.url}",
            field="base",
        )
    if file.exists() and file.samefile(base):
        raise InvalidRequestError(f"{file} is the base itself, which a restore needs: give another name", field="file")
    return (*manifest.bases, as_base(base))


def _check_enrolled(without: frozenset[str], enrolled: set[str]) -> None:
    """Check that all actors to leave out exist: a wrong id would leave the person in the backup."""
    unknown = sorted(without - enrolled)
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise InvalidRequestError(
            Text("there is no actor {named} to leave out: {actors} shows all", named=named, actors=Command("actor list")),
            field="without",
        )


def _footage_of(installation: Installation, rows: Connection, without: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return the SHA-256 of the footage that an erasure of each actor would look for, by id."""
    jobs, artefacts = installation.settings.data_dir / JOBS, installation.artefacts
    with Session(rows) as session:
        return {actor_id: folders_of(session, actor_id, jobs, artefacts).footage for actor_id in without}


def _digest(content: IO[bytes]) -> str:
    content.seek(0)
    return sha256_of(content)


@contextmanager
def _written_whole(file: Path, *, overwrite: bool) -> Iterator[tarfile.TarFile]:
    """Give a tar that lies at `file` when the block has ended without an error. Otherwise nothing stays.

    The partial file is locked until it has its name. Partial files in the same folder that no process has locked are removed: they
    hold names and keys.
    """
    if os.path.lexists(file) and not (overwrite and file.is_file()):
        raise InvalidRequestError(
            Text(
                "{file} exists: give another name, or replace the file with {overwrite}", file=file, overwrite=Option("overwrite")
            ),
            field="file",
        )
    try:
        _remove_left(file.parent)
        partial, handle = _locked_partial(file)
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be written: {problem.strerror or problem}", field="file") from problem
    try:
        message = f"no space left for the backup {file}: free some, or give another disk"
        with translating_full_disk(message, file), os.fdopen(handle, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                yield archive
            stream.flush()
            os.fsync(stream.fileno())
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _locked_partial(file: Path) -> tuple[Path, int]:
    """Create and lock a partial file beside `file`, mode 0600. Return its path and its descriptor; closing it ends the lock.

    Raises:
        OSError: no file can be created in the folder.
    """
    while True:
        partial = file.with_name(f".{file.name[:100]}.{secrets.token_hex(8)}.backup")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if try_lock(handle) is not False and partial.exists():
            return partial, handle
        # Another backup removes the file, which was not locked yet.
        os.close(handle)


def _remove_left(folder: Path) -> None:
    """Remove the partial files of backups that were killed. On a file system without locks, all stay.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries if _PARTIAL.fullmatch(entry.name)]
    for left in paths:
        with suppress(OSError):  # gone meanwhile, or another user's
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if try_lock(handle) and stat.S_ISREG(os.fstat(handle).st_mode):
                    os.unlink(left)
            finally:
                os.close(handle)
