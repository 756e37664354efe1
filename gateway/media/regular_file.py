"""Opens regular files and folders by path. Never waits on a pipe, never opens a device, and follows no link below a confined
folder.

Callers pass on the descriptor (`descriptor_url`) in place of the path, which may name another file a moment later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import MediaUnsupported

_CONFINED: Final[set[Path]] = set()
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def confine(folder: Path) -> None:
    """From now on, open no file below `folder` through a symbolic link in this process.

    For folders that callers of the API may write to: a link that is put there between check and use leads nowhere.

    Args:
        folder: absolute path without symbolic links.
    """
    _CONFINED.add(folder)


def _confined_root(path: Path) -> Path | None:
    return next((root for root in tuple(_CONFINED) if path.is_relative_to(root)), None)


def open_folder(folder: Path) -> int:
    """Return a descriptor of a folder. Below a confined folder, each part of the path is opened alone, and no part may be a link.

    Raises:
        OSError: the folder is missing, no folder, may not be entered, or lies behind a link.
    """
    absolute = Path(os.path.abspath(folder))
    root = _confined_root(absolute)
    if root is None:
        return os.open(folder, _FOLDER)
    handle = os.open(root, _FOLDER)
    for part in absolute.relative_to(root).parts:
        try:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
        finally:
            os.close(handle)
        handle = inner
    return handle


def open_regular(path: Path) -> int | None:
    """Return a descriptor for reading a regular file; None: the path names a folder, pipe, device or socket, which is not opened.

    Raises:
        OSError: the file is missing, may not be read, or lies behind a link below a confined folder.
        ValueError: the path has a NUL byte.
    """
    absolute = Path(os.path.abspath(path))
    confined = _confined_root(absolute) is not None
    folder = open_folder(absolute.parent) if confined else None
    try:
        # O_PATH finds the file without opening it: opening alone can wait (a pipe) or act (a device).
        found = os.open(
            absolute.name if confined else path,
            os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if confined else 0),
            dir_fd=folder,
        )
    finally:
        if folder is not None:
            os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


def descriptor_url(handle: int) -> str:
    """Return the name under which FFmpeg opens exactly the file of a descriptor, whatever the file's own name looks like."""
    return f"file:/proc/self/fd/{handle}"


@contextmanager
def reading(path: Path, *, field: str) -> Iterator[int]:
    """Give a descriptor of a media file for the time of the block.

    Raises:
        MediaUnsupported: the file is missing, empty, not regular, or may not be read. `field` names the option at fault.
    """
    try:
        handle = open_regular(path)
    except FileNotFoundError:
        raise MediaUnsupported(f"{path} does not exist; check the path", field=field) from None
    except PermissionError:
        raise MediaUnsupported(f"{path} may not be read; give yourself read permission on it", field=field) from None
    except ValueError:
        raise MediaUnsupported(f"{str(path)!r} has a NUL byte, which no file name can have; check the path", field=field) from None
    except OSError as problem:
        raise MediaUnsupported(f"{path} cannot be read: {problem.strerror}", field=field) from problem
    if handle is None:
        raise MediaUnsupported(f"{path} is {_kind_of(path)}; give one media file", field=field)
    try:
        if os.fstat(handle).st_size == 0:
            raise MediaUnsupported(f"{path} is empty (0 bytes); copy it again from its source", field=field)
        yield handle
    finally:
        os.close(handle)


def kind_of_mode(mode: int) -> str:
    """Return the kind of a file that is not regular, in words."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _kind_of(path: Path) -> str:
    try:
        return kind_of_mode(os.lstat(path).st_mode if _confined_root(Path(os.path.abspath(path))) else os.stat(path).st_mode)
    except OSError:
        return "no regular file"
