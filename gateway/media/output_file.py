"""A file that appears whole or not at all: it grows under a temporary name beside its own and is renamed when it is complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import av

from gateway.media.opening import reason_of
from gateway.media.output_place import check_replaceable, existing
from gateway.media.regular_file import descriptor_url, open_folder
from services.common.errors import DubstageError, InvalidRequest, MediaUnsupported, StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PARTIAL: Final = re.compile(r"\.dubstage-([0-9a-f]{16})-[0-9a-f]{16}\.partial")
_OLD_S: Final = 24 * 3600
_PATIENCE_S: Final = 5.0
"""How long another process may take to look through the folder; then it is not waited for."""


class OutputFile:
    """The temporary file of one output: created and locked, then either renamed or removed.

    Its name cannot be guessed and is created anew in a folder that stays open: whatever is put under any name there
    meanwhile, nothing else is written to. FFmpeg writes to `url`, which is the open file itself.
    """

    def __init__(self, output: Path, *, overwrite: bool = False) -> None:
        """Creates and locks the temporary file.

        What killed runs left of this output is removed, and so is what they left of others over a day ago.

        Raises:
            InvalidRequest: another job is writing this output, or what exists may not be replaced.
            OSError: the file cannot be created.
        """
        self._output, self._overwrite = output, overwrite
        before = existing(output)
        check_replaceable(output, before, overwrite=overwrite)
        self._before = _identity(before)
        tag = _tag(output)
        self._name = f".dubstage-{tag}-{secrets.token_hex(8)}.partial"
        self._folder = open_folder(output.parent)
        self._handle: int | None = None
        try:
            with _looking_through(self._folder):
                if _sweep(self._folder, tag):
                    raise InvalidRequest(f"{output} is being written by another job; wait for it", field="output")
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._handle = os.open(self._name, flags, 0o666, dir_fd=self._folder)
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._folder)
            raise

    @property
    def url(self) -> str:
        """The name under which FFmpeg writes the file."""
        assert self._handle is not None
        return descriptor_url(self._handle)

    def commit(self) -> None:
        """Gives the file its name, after all of it has reached the disk.

        Raises:
            InvalidRequest: what may not be replaced appeared under the output's name, or the temporary file was exchanged.
            OSError: the file cannot be finished.
        """
        assert self._handle is not None
        os.fsync(self._handle)
        there = existing(self._output)
        if _identity(there) != self._before:
            check_replaceable(self._output, there, overwrite=self._overwrite)
        if not os.path.samestat(os.stat(self._name, dir_fd=self._folder, follow_symlinks=False), os.fstat(self._handle)):
            raise InvalidRequest(f"{self._output}: its temporary file was exchanged while it was written", field="output")
        os.replace(self._name, self._output.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._close()

    def discard(self) -> None:
        """Removes the file; nothing if it was committed or discarded before."""
        if self._handle is None:
            return
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        self._close()

    def _close(self) -> None:
        assert self._handle is not None
        os.close(self._handle)
        os.close(self._folder)
        self._handle = None


def remove_leftovers(output: Path) -> None:
    """Removes what killed runs left of an output, and what they left of others in its folder over a day ago.

    Raises:
        OSError: the folder is missing or may not be read.
    """
    folder = open_folder(output.parent)
    try:
        with _looking_through(folder):
            _sweep(folder, _tag(output))
    finally:
        os.close(folder)


def _tag(output: Path) -> str:
    """Part of a temporary name by which runs with the same output know each other's."""
    return hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]


def _identity(found: os.stat_result | None) -> tuple[int, ...] | None:
    """What tells a file from another one that took its place, or from itself with other content."""
    return None if found is None else (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)


@contextmanager
def _looking_through(folder: int) -> Iterator[None]:
    """One process at a time looks for partial files and adds its own; on file systems without locks all do."""
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - begun < _PATIENCE_S:
                time.sleep(0.02)
                continue
        except OSError:
            pass
        break
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)


def _sweep(folder: int, tag: str) -> bool:
    """Removes partial files that no process holds: those of this output, and old ones.

    Returns whether a process holds one of this output.
    """
    held = False
    with os.scandir(folder) as entries:
        found = [(entry.name, match[1]) for entry in entries if (match := _PARTIAL.fullmatch(entry.name))]
    for name, its_tag in found:
        with suppress(OSError):  # gone meanwhile, or another user's
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                facts = os.fstat(handle)
                if not stat.S_ISREG(facts.st_mode):
                    continue
                old = time.time() - facts.st_mtime > _OLD_S
                free = _is_free(handle)
                if free is False:
                    held |= its_tag == tag
                elif old or (free and its_tag == tag):
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(handle)
    return held


def _is_free(handle: int) -> bool | None:
    """Whether no process holds a partial file; None on file systems without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def output_error(problem: BaseException, output: Path, codec: str) -> DubstageError | None:
    """The error to report for what went wrong while `output` was written; None where `problem` says it best itself."""
    if isinstance(problem, DubstageError) or not isinstance(problem, (av.FFmpegError, OSError)):
        return None
    number = getattr(problem, "errno", None)
    if number in _FULL:
        return StorageFull(f"no space left to write {output}; free some, or choose another folder", subject=str(output.parent))
    if isinstance(problem, OSError):
        return InvalidRequest(f"{output} cannot be written: {reason_of(problem)}", field="output")
    return MediaUnsupported(
        f"{output}: {codec} in {output.suffix} cannot hold this film ({reason_of(problem)}); try --codec ffv1 to an .mp4",
        field="codec",
    )
