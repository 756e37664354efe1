"""A folder of small files in any file system of fsspec. Every file is written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.errors import StorageRefused
from services.common.store.blob_files import PARTIAL, write_atomically
from services.common.store.storage_backend import open_backend

_VERSION: Final = ("ETag", "ino", "mtime", "LastModified", "created", "size")
"""What file systems say of a file that changes when the file is written again."""

_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """File of a folder.

    Attributes:
        name: name of the file or folder.
        version: facts that change when the file is written again.
    """

    name: str
    version: tuple[Any, ...]


class Folder:
    """A folder of small files. All methods block, and may be called from any thread.

    Paths are relative to the root, with slashes. Each method raises StorageRefused, StorageFull or BackendUnavailable as
    `Backend.told` says.

    Args:
        url: path, or URL of fsspec.
        what: name of the folder in messages, such as `the store of batches`.
        setting: setting that holds the URL, for messages.

    Raises:
        InvalidRequest: there is no such protocol, its package is not installed, or the URL names no bucket.
    """

    def __init__(self, url: str, *, what: str, setting: str) -> None:
        self._backend = open_backend(url, what=what, setting=setting)
        self._fs, self._local = self._backend.files, self._backend.local
        # s3fs would ask for the size of every file before it reads the file.
        self._reading = {"max_concurrency": 1} if url.startswith("s3://") else {}

    @property
    def url(self) -> str:
        """Root with its protocol."""
        return self._backend.url

    def place(self, path: str) -> str:
        """Return a file's full path or URL, for messages."""
        return self._full(path) if self._local else f"{self.url}/{path}"

    def entries(self, path: str) -> list[Entry]:
        """Return the files and folders in a folder, in no particular order. Half-written files are left out.

        A missing folder is empty.
        """
        try:
            with self._backend.told():
                found: list[dict[str, Any]] = self._fs.ls(self._full(path), detail=True)
        except FileNotFoundError:
            return []
        entries = [Entry(_name(facts), tuple(str(facts.get(key)) for key in _VERSION)) for facts in found]
        return [entry for entry in entries if entry.name and not entry.name.startswith(".")]

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None: there is no such file."""
        try:
            with self._backend.told():
                return bytes(self._fs.cat_file(self._full(path), **self._reading))
        except FileNotFoundError:
            return None

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of files by path, read at once where the file system can. Missing files are left out."""
        if not paths:
            return {}
        with self._backend.told():
            contents = self._fs.cat_ranges([self._full(path) for path in paths], None, None, on_error="return", **self._reading)
        found: dict[str, bytes] = {}
        for path, content in zip(paths, contents, strict=True):
            if isinstance(content, bytes):
                found[path] = content
                continue
            with suppress(FileNotFoundError), self._backend.told():
                raise content
        return found

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        try:
            with self._backend.told():
                self._fs.info(self._full(path))
        except FileNotFoundError:
            return False
        return True

    def write(self, path: str, content: bytes) -> None:
        """Write a file, in place of an older one."""
        self.write_all({path: content})

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Write files by path, at once where the file system can. Each file is written whole or not at all."""
        with self._writing(contents):
            if self._local:
                # The disk confirms many files at once in the time of one.
                with ThreadPoolExecutor(min(_THREADS, len(contents)) or 1) as threads:
                    list(threads.map(self._write_locally, contents.items()))
            elif contents:
                self._fs.pipe({self._full(path): content for path, content in contents.items()})

    def create(self, path: str, content: bytes) -> bool:
        """Write a file that does not exist yet. Return whether this call made the file: of several callers, one does."""
        try:
            with self._writing([path]):
                if self._local:
                    _create_locally(Path(self._full(path)), content)
                    return True
                # Some stores do not know the condition "only if there is none" and would replace the file.
                if self._fs.exists(self._full(path)):
                    return False
                try:
                    self._fs.pipe_file(self._full(path), content, mode="create")
                except FileExistsError:
                    return False
        except FileExistsError:
            return False
        return True

    def size_bytes(self, path: str) -> int:
        """Return the bytes of all files in a folder and below. A missing folder has none."""
        try:
            with self._backend.told():
                return int(self._fs.du(self._full(path)))
        except FileNotFoundError:
            return 0

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove files. Missing files are left out."""
        with self._backend.told():
            if not self._reading:
                for path in paths:
                    with suppress(FileNotFoundError):
                        self._fs.rm_file(self._full(path))
            elif paths:
                # S3 removes a thousand objects with one request, and does not mind missing ones.
                self._fs.rm([self._full(path) for path in paths])

    def remove_empty(self, path: str) -> None:
        """Remove a folder that holds no files other than hidden ones. A bucket has no folders."""
        if not self._local:
            return
        folder = Path(self._full(path))
        if self.entries(path):
            return
        with suppress(OSError):
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()

    def _write_locally(self, file: tuple[str, bytes]) -> None:
        path, content = file
        write_atomically(Path(self._full(path)), [content])

    def _full(self, path: str) -> str:
        return f"{self._backend.root}/{path}" if path else self._backend.root

    @contextmanager
    def _writing(self, paths: Mapping[str, bytes] | Sequence[str]) -> Iterator[None]:
        try:
            with self._backend.told():
                if self._backend.has_folders and not self._local:
                    for folder in {self._full(path).rpartition("/")[0] for path in paths}:
                        self._fs.makedirs(folder, exist_ok=True)
                yield
        except FileNotFoundError as error:
            raise StorageRefused(f"{self._backend.what} {self._backend.where} takes nothing: {error}", subject=self.url) from error


def _name(facts: Mapping[str, Any]) -> str:
    return str(facts["name"]).rstrip("/").rpartition("/")[2]


def _create_locally(path: Path, content: bytes) -> None:
    """Write a file that does not exist yet, whole.

    Raises:
        FileExistsError: the file exists.
    """
    if path.exists():
        raise FileExistsError(path)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    write_atomically(partial, [content])
    try:
        os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
