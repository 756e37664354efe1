"""Uploads of callers: files of one folder, each written under a hidden name in pieces, and renamed when it is whole.

Calls of several gateways may use the folder. A lock of the hidden file keeps two calls from writing it together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.safe_paths import make_folder, open_folder
from gateway.times import DAY_S
from services.common.errors import FileInUseError, FileMissingError, InvalidRequestError, StorageRefusedError
from services.common.files import BLOB_MODE, translating_full_disk
from services.common.locks import try_lock
from services.common.server.call_context import check_not_cancelled

FOLDER: Final = "uploads"
"""Folder of uploads in a media folder."""
PARTIAL: Final = ".upload-"
"""Beginning of the hidden name of a file that is not whole yet."""
PARTIAL_AGE_S: Final = DAY_S
"""Seconds after the last data after which an upload that is not whole is removed."""
PIECE_BYTES: Final = 256 << 10
_READ_BYTES: Final = 4 << 20
_KEPT_DIGESTS: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def upload_name(name: str) -> str:
    """Return the name of an upload.

    Raises:
        InvalidRequestError: no upload can have this name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name[:80]!r} cannot be the name of an upload: give 1 to 128 ASCII letters, digits, dots, hyphens and "
            "underscores, and no dot at the beginning",
            field="name",
            named=True,
        )
    return name


def sha256_text(sha256: str) -> str:
    """Return a SHA-256 in lower case; empty: none is given.

    Raises:
        InvalidRequestError: the text has other than 64 hexadecimal digits.
    """
    if sha256 and not _SHA256.fullmatch(sha256.lower()):
        raise InvalidRequestError(
            f"{sha256[:80]!r} is no SHA-256: give 64 hexadecimal digits, or nothing", field="sha256", named=True
        )
    return sha256.lower()


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """An upload as it is on the disk.

    Attributes:
        name: name of the upload.
        received_bytes: bytes that are there.
        complete: whether the file is whole.
        written_at: time of the last data, Unix time in seconds.
    """

    name: str
    received_bytes: int
    complete: bool
    written_at: float

    def expires_at(self, max_age_s: float) -> float | None:
        """Return when the upload is removed, Unix time in seconds; None: never.

        Args:
            max_age_s: age at which a whole file is removed, seconds; 0: never.
        """
        if self.complete:
            return self.written_at + max_age_s if max_age_s else None
        return self.written_at + (min(max_age_s, PARTIAL_AGE_S) if max_age_s else PARTIAL_AGE_S)


@dataclass(frozen=True, slots=True)
class UploadsUse:
    """Uploads of a tenant, as far as limits count them.

    Attributes:
        names: names of the uploads, whole or not.
        num_bytes: size of all files, bytes.
    """

    names: frozenset[str]
    num_bytes: int


class Digests:
    """SHA-256 of files, computed once as long as the files stay the same. Safe for several threads."""

    def __init__(self) -> None:
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, handle: int) -> str:
        """Return the SHA-256 of an open file, hexadecimal. Blocks.

        Raises:
            OSError: the file cannot be read.
        """
        facts = os.fstat(handle)
        key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            if stored := self._digests.get(key):
                return stored
        digest, offset = hashlib.sha256(), 0
        while offset < facts.st_size and (data := os.pread(handle, min(_READ_BYTES, facts.st_size - offset), offset)):
            check_not_cancelled()
            digest.update(data)
            offset += len(data)
        with self._lock:
            self._digests[key] = digest.hexdigest()
            while len(self._digests) > _KEPT_DIGESTS:
                self._digests.popitem(last=False)
        return digest.hexdigest()


class PartialUpload:
    """The hidden file of an upload, locked for one call. All methods block.

    Attributes:
        name: name of the upload.
        size_bytes: size of the whole file.
        present_bytes: bytes that were there when the call began.
        received_bytes: bytes that are there now and belong to the file.

    Args:
        folder: descriptor of the folder.
        handle: descriptor of the locked file.
        digests: SHA-256 of the files of the folder.
        name: see the attribute.
        size_bytes: see the attribute.
        sha256: SHA-256 that the whole file must have, hexadecimal; empty: any.
        offset: bytes that stay.
    """

    def __init__(self, folder: int, handle: int, digests: Digests, *, name: str, size_bytes: int, sha256: str, offset: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.present_bytes = os.fstat(handle).st_size
        self.received_bytes = offset
        self._folder = folder
        self._handle = handle
        self._digests = digests
        self._sha256 = sha256

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to come."""
        return self.size_bytes - self.received_bytes

    def prepare(self) -> None:
        """Remove the bytes behind the offset."""
        os.ftruncate(self._handle, self.received_bytes)

    def write(self, data: bytes) -> None:
        """Write the next bytes.

        Raises:
            InvalidRequestError: the file would have more bytes than was said.
            StorageFullError: the disk is full.
        """
        if len(data) > self.missing_bytes:
            raise InvalidRequestError(f"more than the {self.size_bytes} bytes of size_bytes came", field="data", named=True)
        rest = memoryview(data)
        with translating_full_disk("the disk of the media folder is full: delete uploads that are not needed", Path(FOLDER)):
            while rest:
                written = os.pwrite(self._handle, rest, self.received_bytes)
                self.received_bytes += written
                rest = rest[written:]

    def finish(self) -> None:
        """Give the file its name if all bytes are there. Otherwise the file stays hidden.

        Raises:
            InvalidRequestError: the file has another SHA-256 than was said, and was removed.
            StorageFullError: the disk is full.
        """
        if self.missing_bytes:
            return
        # The file is read once, when it is whole: a file may come in hundreds of calls.
        if self._sha256 and (sha256 := self._digests.of(self._handle)) != self._sha256:
            os.unlink(PARTIAL + self.name, dir_fd=self._folder)
            raise InvalidRequestError(
                f"the {self.size_bytes} bytes of {self.name} have the SHA-256 {sha256}, not {self._sha256}: upload the file "
                "again from its beginning",
                field="sha256",
                named=True,
            )
        with translating_full_disk("the disk of the media folder is full: delete uploads that are not needed", Path(FOLDER)):
            # Without fsync, a machine that loses power could keep the name and lose the bytes.
            os.fsync(self._handle)
        os.rename(PARTIAL + self.name, self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)


class UploadFolder:
    """Folder of the uploads of one tenant. All methods block.

    No method follows a symbolic link in the media folder, if the media folder is confined.

    Args:
        media: the tenant's media folder, absolute and without symbolic links.
    """

    def __init__(self, media: Path) -> None:
        self._media = media
        self.path = media / FOLDER
        self._digests = Digests()

    @contextmanager
    def begin(self, name: str, *, size_bytes: int, sha256: str, offset: int) -> Iterator[PartialUpload]:
        """Open and lock an upload until the end of the block. Nothing is changed before `PartialUpload.prepare`.

        A hidden file without data is removed at the end.

        Args:
            name: name of the upload.
            size_bytes: size of the whole file.
            sha256: SHA-256 of the whole file, hexadecimal; empty: not checked.
            offset: of the first byte that comes.

        Raises:
            InvalidRequestError: a field cannot be used, or fewer bytes than `offset` are there.
            FileInUseError: another call uploads the file.
            StorageRefusedError: the folder cannot be used.
        """
        upload_name(name)
        sha256 = sha256_text(sha256)
        if size_bytes < 1:
            raise InvalidRequestError(f"{size_bytes}: a file of media has at least one byte", field="size_bytes", named=True)
        with self._domain_errors():
            # The folder of a tenant's media need not exist yet.
            self._media.mkdir(parents=True, exist_ok=True)
            make_folder(self.path)
            folder = open_folder(self.path)
        try:
            with self._domain_errors():
                if not _is_free_or_file(folder, name):
                    raise InvalidRequestError(f"{name} is a folder or no regular file: give another name", field="name", named=True)
                handle = _open_locked(folder, name)
            try:
                there = os.fstat(handle).st_size
                if offset > min(there, size_bytes):
                    raise InvalidRequestError(
                        f"{offset} of {size_bytes} bytes: {there} bytes of {name} are there: go on from there",
                        field="offset",
                        named=True,
                    )
                yield PartialUpload(folder, handle, self._digests, name=name, size_bytes=size_bytes, sha256=sha256, offset=offset)
            finally:
                _close_partial(folder, handle, name)
        finally:
            os.close(folder)

    def stored(self) -> list[StoredUpload]:
        """Return the uploads by name. A file that is being replaced is shown as the new file.

        Raises:
            StorageRefusedError: the folder cannot be read.
        """
        uploads: dict[str, StoredUpload] = {}
        for name, facts in self._files():
            hidden = name.startswith(PARTIAL)
            own = name.removeprefix(PARTIAL)
            if _NAME.fullmatch(own) and (hidden or own not in uploads):
                uploads[own] = StoredUpload(own, facts.st_size, not hidden, facts.st_mtime)
        return sorted(uploads.values(), key=lambda upload: upload.name)

    def get(self, name: str) -> StoredUpload:
        """Return an upload.

        Raises:
            InvalidRequestError: no upload can have this name.
            FileMissingError: there is no such upload.
        """
        upload_name(name)
        # The new file of an upload that is being replaced comes first.
        for own in (PARTIAL + name, name):
            if (facts := self._facts(own)) is not None:
                return StoredUpload(name, facts.st_size, own == name, facts.st_mtime)
        raise FileMissingError(f"there is no upload {name!r}", resource=name)

    def has(self, name: str) -> bool:
        """Return whether a whole file of this name is there."""
        return self._facts(name) is not None

    def use(self) -> UploadsUse:
        """Return what the uploads in the folder use."""
        files = [(name, facts.st_size) for name, facts in self._files()]
        return UploadsUse(frozenset(name.removeprefix(PARTIAL) for name, _ in files), sum(size for _, size in files))

    def sha256(self, handle: int) -> str:
        """Return the SHA-256 of an open file, hexadecimal, computed once.

        Raises:
            OSError: the file cannot be read.
        """
        return self._digests.of(handle)

    def remove(self, name: str) -> None:
        """Remove an upload, whole or not.

        Raises:
            InvalidRequestError: no upload can have this name.
            FileMissingError: there is no such upload.
            FileInUseError: a call uploads the file.
        """
        self.get(name)
        with self._opened() as folder:
            if folder is not None:
                self._remove_partial(folder, name)
                _unlink(folder, name)

    def expire(self, now: float, max_age_s: float, in_use: Callable[[], Collection[Path]]) -> list[str]:
        """Remove the uploads that are too old, and return their names.

        Args:
            now: present time, Unix time in seconds.
            max_age_s: age at which a whole file is removed, seconds; 0: never.
            in_use: returns the files that work uses. They stay.

        Raises:
            StorageRefusedError: the folder cannot be used.
        """
        old = [upload for upload in self.stored() if (end := upload.expires_at(max_age_s)) is not None and end <= now]
        if not old:
            return []
        used = in_use() if any(upload.complete for upload in old) else ()
        removed = []
        with self._opened() as folder:
            for upload in old if folder is not None else ():
                assert folder is not None
                if upload.complete and self.path / upload.name not in used:
                    _unlink(folder, upload.name)
                    removed.append(upload.name)
                elif not upload.complete:
                    try:
                        self._remove_partial(folder, upload.name)
                    except FileInUseError:
                        continue
                    removed.append(upload.name)
        return removed

    def _remove_partial(self, folder: int, name: str) -> None:
        try:
            handle = os.open(PARTIAL + name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return
        try:
            if try_lock(handle) is False:
                raise _uploading(name)
            _unlink(folder, PARTIAL + name)
        finally:
            os.close(handle)

    def _facts(self, name: str) -> os.stat_result | None:
        """Return facts of a regular file of the folder; None: there is no such file."""
        with self._opened() as folder:
            return _facts_of(folder, name) if folder is not None else None

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield names and facts of the regular files of the folder."""
        with self._opened() as folder:
            for name in os.listdir(folder) if folder is not None else ():
                if (facts := _facts_of(folder, name)) is not None:
                    yield name, facts

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Give a descriptor of the folder; None: there is no folder yet."""
        with self._domain_errors():
            try:
                folder: int | None = open_folder(self.path)
            except FileNotFoundError:
                folder = None
            try:
                yield folder
            finally:
                if folder is not None:
                    os.close(folder)

    @contextmanager
    def _domain_errors(self) -> Iterator[None]:
        """Translate errors of the folder."""
        try:
            with translating_full_disk("the disk of the media folder is full: delete uploads that are not needed", self.path):
                yield
        except OSError as problem:
            raise StorageRefusedError(
                f"the folder of uploads {self.path} cannot be used: {problem.strerror or problem}", subject=str(self.path)
            ) from problem


def _facts_of(folder: int | None, name: str) -> os.stat_result | None:
    """Return facts of a regular file; None: there is no such file."""
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _uploading(name: str) -> FileInUseError:
    return FileInUseError(f"another call uploads {name}: wait for its end, or give another name", subject=name)


def _is_free_or_file(folder: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True


def _open_locked(folder: int, name: str) -> int:
    """Return the descriptor of the locked hidden file of an upload."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        handle = os.open(PARTIAL + name, flags, BLOB_MODE, dir_fd=folder)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", PARTIAL + name)
            if try_lock(handle) is False:
                raise _uploading(name)
            if _names(folder, PARTIAL + name, facts):
                return handle
        except BaseException:
            os.close(handle)
            raise
        # Another call renamed or removed the file between the opening and the lock.
        os.close(handle)


def _close_partial(folder: int, handle: int, name: str) -> None:
    """Close the locked hidden file of an upload, and remove it if it has no data."""
    try:
        if not os.fstat(handle).st_size:
            _unlink(folder, PARTIAL + name)
    finally:
        os.close(handle)


def _names(folder: int, name: str, facts: os.stat_result) -> bool:
    try:
        current = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (current.st_dev, current.st_ino) == (facts.st_dev, facts.st_ino)


def _unlink(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


class FileReader:
    """An open file, read in pieces. All methods block.

    Attributes:
        size_bytes: size of the file.

    Args:
        handle: descriptor of a regular file, which the object closes.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size_bytes = os.fstat(handle).st_size

    def piece(self, offset: int, end: int) -> bytes:
        """Return the next bytes of the file, at most PIECE_BYTES.

        Args:
            offset: of the first byte.
            end: offset behind the last byte that may be returned.
        """
        return os.pread(self.handle, min(PIECE_BYTES, end - offset), offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)
