"""The file of a backup: a tar with a manifest first, then the rows of the tables, the keys and the blobs.

    manifest.json        format, version, time, URL of the artefact store, number of blobs, SHA-256 of rows and keys
    tables/NAME.jsonl    one row a line
    receipt.key          key that signs receipts of erasures, if there is one
    provenance.pem       key and certificates that the installation made to sign films, if there are any
    blobs/SHA256         bytes of a blob; the name is their digest

Every member can be checked with what the file itself says.
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

from services.common.errors import InvalidRequest
from services.common.store.blob_files import sha256_of

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_MAX_MANIFEST_BYTES: Final = 1 << 20
_BLOBS: Final = "blobs/"
_MODE: Final = 0o600
# A damaged or hostile header can make tarfile raise any of these.
_UNREADABLE: Final = (tarfile.TarError, OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a backup holds.

    Attributes:
        format: version of the file's layout.
        dubstage: version of dubstage that wrote the file.
        created_at: time of the backup, RFC 3339, UTC.
        artefacts_url: URL of the artefact store that the blobs come from. The rows name blobs below this URL.
        actors: number of actors.
        blobs: number of blobs.
        blob_bytes: size of all blobs, bytes.
        members: SHA-256 of each member that is neither the manifest nor a blob, by name.
        database: id of the database, which the artefact store carries; empty: an earlier version wrote the backup.
    """

    format: int
    dubstage: str
    created_at: str
    artefacts_url: str
    actors: int
    blobs: int
    blob_bytes: int
    members: dict[str, str]
    database: str = ""


class ArchiveWriter:
    """Writes the members of a backup in the order of the file.

    Args:
        archive: open tar.
        manifest: what the backup holds.
        members: contents of the members that the manifest names. They are read from their beginning.
    """

    def __init__(self, archive: tarfile.TarFile, manifest: Manifest, members: Mapping[str, IO[bytes]]) -> None:
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


def read_manifest(file: Path) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        InvalidRequest: the file cannot be read, is no backup, or another version of dubstage wrote its layout.
    """
    with opened(file) as archive:
        return _manifest(file, archive)


def members(file: Path) -> Generator[tuple[str, IO[bytes]], None, None]:
    """Yield name and content of every member behind the manifest, checked: the rows and the keys first, then the blobs.

    A blob's name is its SHA-256. A content can be read until the iterator ends, and takes no memory before.

    Raises:
        InvalidRequest: the file is no backup, is damaged, or ends too early. The message names the member.
    """
    with opened(file) as archive:
        manifest = _manifest(file, archive)
        waiting, blobs = dict(manifest.members), 0
        while (member := _next(file, archive)) is not None:
            content = _content(file, archive, member)
            found = sha256_of(content)
            is_blob = member.name.startswith(_BLOBS)
            if found != (member.name.removeprefix(_BLOBS) if is_blob else waiting.pop(member.name, "")):
                raise _damaged(file, f"{member.name} is not what the backup's manifest says")
            blobs += is_blob
            content.seek(0)
            yield (found if is_blob else member.name), content
        if waiting or blobs != manifest.blobs:
            raise _damaged(file, f"{len(waiting) + manifest.blobs - blobs} members are missing")


def opened(file: Path) -> tarfile.TarFile:
    """Return a backup, opened to be read.

    Raises:
        InvalidRequest: the file cannot be read, or is no tar.
    """
    try:
        return tarfile.open(file, "r:")
    except OSError as problem:
        raise InvalidRequest(f"{file} cannot be read: {problem.strerror or problem}", field="file") from problem
    except _UNREADABLE as problem:
        raise InvalidRequest(f"{file} is no backup of dubstage: {problem}", field="file") from problem


def _manifest(file: Path, archive: tarfile.TarFile) -> Manifest:
    member = _next(file, archive)
    if member is None or member.name != MANIFEST or member.size > _MAX_MANIFEST_BYTES:
        raise InvalidRequest(f"{file} is no backup of dubstage: the first member is not {MANIFEST}", field="file")
    try:
        fields = json.loads(_content(file, archive, member).read())
        if fields["format"] != FORMAT:
            raise InvalidRequest(
                f"{file} has layout {fields['format']!r}, and this version of dubstage reads layout {FORMAT}: restore it with the "
                f"version {fields.get('dubstage')!r} that wrote it",
                field="file",
            )
        return TypeAdapter(Manifest).validate_python(fields)
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        said = " ".join(str(problem).split())[:200]
        raise _damaged(file, f"{MANIFEST} is not readable ({said})") from problem


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


def _damaged(file: Path, found: str) -> InvalidRequest:
    return InvalidRequest(f"the backup {file} is damaged: {found}: take another backup", field="file")
