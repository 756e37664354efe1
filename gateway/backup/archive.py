"""The file of a backup: a tar with a manifest first, then the rows, the keys and the blobs.

    manifest.json        format, version, time, URL of the artefact store, number of blobs, SHA-256 of rows and keys
    database.sqlite      rows of all tables, an SQLite database
    signing.pem          key that signs receipts and audit logs, if there is one
    provenance.pem       key and certificates that the installation made to sign videos, if there are any
    blobs/SHA256         bytes of a blob; the name is their digest

Every member can be checked with what the file itself says. An incremental backup has all rows and keys, and the blobs that earlier
backups of the installation, its bases, do not have.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from pydantic import TypeAdapter

from gateway.database.upgrades import head, revisions
from gateway.private_files import KEY_MODE, key_file_error
from gateway.provenance.credential import KEY_FILE
from gateway.signatures import KEY_FILE as SIGNING
from services.common.errors import InvalidRequestError
from services.common.files import create_whole, sha256_of

FORMAT: Final = 1
"""Layout of the file."""
MANIFEST: Final = "manifest.json"
_MAX_MANIFEST_BYTES: Final = 1 << 20
_BLOBS: Final = "blobs/"
DATABASE: Final = "database.sqlite"
_MODE: Final = 0o600
# A damaged or hostile header can make tarfile raise any of these.
_UNREADABLE: Final = (tarfile.TarError, OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError)
KEYS: Final = {
    SIGNING: "signs receipts and audit logs",
    KEY_FILE: "signs videos",
}
"""Files in the data folder, and what each key does. A backup has a member of the same name for each file that exists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseBackup:
    """Earlier backup that an incremental backup is based on.

    Attributes:
        sha256: SHA-256 of the manifest of the earlier backup.
        created_at: time of the earlier backup, RFC 3339, UTC.
    """

    sha256: str
    created_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupManifest:
    """Content of a backup.

    Attributes:
        format: version of the file's layout.
        dubstage: version of dubstage that wrote the file.
        created_at: time of the backup, RFC 3339, UTC.
        artefacts_url: URL of the artefact store that the blobs come from. The rows name blobs below this URL.
        actors: number of actors.
        blobs: number of blobs in the file.
        blob_bytes: size of the blobs in the file, bytes.
        members: SHA-256 of each member that is neither the manifest nor a blob, by name.
        database: id of the database, which the artefact store carries.
        revision: revision of the tables that the rows come from.
        bases: earlier backups that have the other blobs, the oldest one first; empty: the backup is a full one.
    """

    format: int
    dubstage: str
    created_at: str
    artefacts_url: str
    actors: int
    blobs: int
    blob_bytes: int
    members: dict[str, str]
    database: str
    revision: str
    bases: tuple[BaseBackup, ...] = ()


class ArchiveWriter:
    """Writes the members of a backup in the order of the file.

    Args:
        archive: open tar.
        manifest: what the backup holds.
        members: contents of the members that the manifest names. They are read from their beginning.
    """

    def __init__(self, archive: tarfile.TarFile, manifest: BackupManifest, members: Mapping[str, IO[bytes]]) -> None:
        self._archive = archive
        self._add(MANIFEST, io.BytesIO(json.dumps(asdict(manifest), indent=1).encode()))
        for name, content in members.items():
            self._add(name, content)

    def add_blob(self, sha256: str, content: bytes) -> None:
        """Write one blob."""
        self._add(_BLOBS + sha256, io.BytesIO(content))

    def _add(self, name: str, content: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = content.seek(0, io.SEEK_END), _MODE
        content.seek(0)
        self._archive.addfile(member, content)


def read_manifest(file: Path) -> BackupManifest:
    """Return the manifest of a backup.

    Raises:
        InvalidRequestError: the file cannot be read, is no backup, or another version of dubstage wrote its layout.
    """
    with opened(file) as archive:
        return _manifest(file, archive)


def as_base(file: Path) -> BaseBackup:
    """Return how the manifest of an incremental backup names a backup.

    Raises:
        InvalidRequestError: as `read_manifest`.
    """
    manifest = read_manifest(file)
    with opened(file) as archive:
        first = _next(file, archive)
        assert first is not None, "the manifest was read"
        return BaseBackup(sha256=sha256_of(_content(file, archive, first)), created_at=manifest.created_at)


def members(file: Path) -> Generator[tuple[str, IO[bytes]], None, None]:
    """Yield name and content of every member behind the manifest, checked: the rows and the keys first, then the blobs.

    A blob's name is its SHA-256. A content can be read until the iterator ends, and takes no memory before.

    Raises:
        InvalidRequestError: the file is no backup, is damaged, or ends too early. The message names the member.
    """
    with opened(file) as archive:
        manifest = _manifest(file, archive)
        waiting, blobs = dict(manifest.members), 0
        while (member := _next(file, archive)) is not None:
            content = _content(file, archive, member)
            digest = sha256_of(content)
            is_blob = member.name.startswith(_BLOBS)
            if digest != (member.name.removeprefix(_BLOBS) if is_blob else waiting.pop(member.name, "")):
                raise _damaged(file, f"{member.name} is not what the backup's manifest says")
            blobs += is_blob
            content.seek(0)
            yield (digest if is_blob else member.name), content
        if waiting or blobs != manifest.blobs:
            raise _damaged(file, f"{len(waiting) + manifest.blobs - blobs} members are missing")


def opened(file: Path) -> tarfile.TarFile:
    """Return a backup, opened to be read.

    Raises:
        InvalidRequestError: the file cannot be read, or is no tar.
    """
    try:
        return tarfile.open(file, "r:")
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror or problem}", field="file") from problem
    except _UNREADABLE as problem:
        raise InvalidRequestError(f"{file} is no backup of dubstage: {problem}", field="file") from problem


def _manifest(file: Path, archive: tarfile.TarFile) -> BackupManifest:
    member = _next(file, archive)
    if member is None or member.name != MANIFEST or member.size > _MAX_MANIFEST_BYTES:
        raise InvalidRequestError(f"{file} is no backup of dubstage: the first member is not {MANIFEST}", field="file")
    try:
        fields = json.loads(_content(file, archive, member).read())
        if fields["format"] != FORMAT:
            raise InvalidRequestError(
                f"{file} has layout {fields['format']!r}, and this version of dubstage reads layout {FORMAT}: "
                f"restore it with the version {fields.get('dubstage')!r} that wrote it",
                field="file",
            )
        manifest = TypeAdapter(BackupManifest).validate_python(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        said = " ".join(str(problem).split())[:200]
        raise _damaged(file, f"{MANIFEST} is not readable ({said})") from problem
    if manifest.revision not in revisions():
        raise InvalidRequestError(
            f"{file} has tables of revision {manifest.revision[:32]!r}, and this version of dubstage has revision {head()}: "
            f"restore it with the version {manifest.dubstage!r} that wrote it, then upgrade the installation",
            field="file",
        )
    return manifest


def _next(file: Path, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return archive.next()
    except _UNREADABLE as problem:
        raise _damaged(file, str(problem)) from problem


def _content(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    # A sparse member can claim any size.
    stream = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if stream is None:
        raise _damaged(file, f"{member.name} is no plain file")
    if member.offset_data + member.size > file.stat().st_size:
        raise _damaged(file, f"{member.name} ends too early")
    return stream


def _damaged(file: Path, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"the backup {file} is damaged: {problem}: take another backup", field="file")


def keys_in(folder: Path) -> dict[str, bytes]:
    """Return the keys of a data folder by file name. A key that the installation has not made yet is left out.

    Raises:
        StorageRefusedError: a file cannot be read.
    """
    return {name: content for name in KEYS if (content := _key_content(folder / name)) is not None}


def check_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Check that a data folder has no other keys than the backup.

    Args:
        folder: the data folder.
        keys: keys of the backup by file name.

    Raises:
        InvalidRequestError: a file holds another key.
        StorageRefusedError: a file cannot be read.
    """
    for name, key in keys.items():
        if _key_content(folder / name) not in (None, key):
            raise InvalidRequestError(
                f"{folder / name} is another key than the backup's, and the backup's {KEYS[name]}: move the file away, "
                "then restore again",
                field="file",
            )


def keep_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Write the keys of a backup to a data folder (mode 0600). A file that exists stays as it is.

    Args:
        folder: the data folder.
        keys: keys of the backup by file name.

    Raises:
        InvalidRequestError: a file holds another key.
        StorageRefusedError: a file cannot be read or written.
    """
    for name, key in keys.items():
        try:
            create_whole(folder / name, key, mode=KEY_MODE)
        except OSError as problem:
            raise key_file_error(folder / name, problem) from problem
    # Another process may have made a key of its own since the check before the blobs.
    check_keys(folder, keys)


def _key_content(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.exists() else None
    except OSError as problem:
        raise key_file_error(file, problem) from problem
