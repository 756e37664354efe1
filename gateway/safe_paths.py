"""Files and folders that users name: opened, read, made and removed without following a link out of a confined folder.

Callers of the API may write to some folders. A link that is put there between check and use leads nowhere. Nothing here waits on a
pipe or opens a device. Callers pass on the descriptor (`descriptor_url`) in place of the path, which may name another file a moment
later.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from services.common.errors import InvalidRequestError, MediaUnsupportedError

_CONFINED: Final[set[Path]] = set()
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
"""A URL as a path, which keeps one of its two slashes."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def confine(folder: Path) -> None:
    """From now on, open, make and remove nothing below `folder` through a symbolic link in this process.

    Args:
        folder: absolute path without symbolic links.
    """
    _CONFINED.add(folder)


def confined_root(path: Path) -> Path | None:
    """Return the confined folder that an absolute path lies in; None: there is none."""
    return next((root for root in tuple(_CONFINED) if path.is_relative_to(root)), None)


def entry_of(folder: Path, path: str) -> Path | None:
    """Return the entry of `folder` that a stored path names; None: the path names another folder, or the entry is a symbolic link.

    For paths of a database or a file that lead to removal: whoever can write there must not choose what is removed.

    Args:
        folder: the folder, absolute or relative, with or without symbolic links in its own path.
        path: the stored path.
    """
    name = Path(path).name
    if name in ("", "..") or "\0" in path:
        return None
    try:
        there = Path(path).parent.resolve() == folder.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return None
    entry = folder / name
    return entry if there and not entry.is_symlink() else None


def path_below(folder: Path, name: str, *, field: str) -> Path:
    """Return the path of a file or folder whose name comes from data, such as a language, a clip or a shot.

    Args:
        folder: folder that the path must not leave.
        name: name below the folder; it may have folders of its own, such as `de/sh010.mov`.
        field: option or field at fault, for errors.

    Raises:
        InvalidRequestError: the name is empty or absolute, leads to a folder above by `..`, or has a NUL byte.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise InvalidRequestError(
            f"{name[:80]!r} is no name of a file in {folder}: a name is not empty, does not begin with / and has no part ..",
            field=field,
        )
    return folder / name


def open_folder(folder: Path) -> int:
    """Return a descriptor of a folder. Below a confined folder, each part of the path is opened alone, and no part may be a link.

    Raises:
        OSError: the folder is missing, no folder, may not be entered, or lies behind a link.
    """
    absolute = Path(os.path.abspath(folder))
    root = confined_root(absolute)
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
    confined = confined_root(absolute) is not None
    folder = open_folder(absolute.parent) if confined else None
    try:
        # O_PATH finds the file without opening it: even opening can wait (a pipe) or act (a device).
        handle = os.open(
            absolute.name if confined else path,
            os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if confined else 0),
            dir_fd=folder,
        )
    finally:
        if folder is not None:
            os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and the folders above it that are missing. Below a confined folder, no part of the path may be a link.

    Raises:
        OSError: a part cannot be made, is no folder, or lies behind a link.
        ValueError: the path has a NUL byte.
    """
    absolute = Path(os.path.abspath(folder))
    root = confined_root(absolute)
    if root is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    for part in (*reversed(absolute.parents), absolute):
        if part.is_relative_to(root) and part != root:
            above = open_folder(part.parent)
            try:
                os.mkdir(part.name, dir_fd=above)
            except FileExistsError:
                continue
            finally:
                os.close(above)
    os.close(open_folder(absolute))


def remove_file(file: Path) -> None:
    """Remove a file if there is one. Below a confined folder, nothing behind a link is removed.

    Raises:
        OSError: the file may not be removed, is a folder, or lies behind a link.
    """
    try:
        folder = open_folder(file.parent)
    except FileNotFoundError:
        return
    try:
        os.unlink(file.name, dir_fd=folder)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)


def open_regular_file(file: Path) -> BinaryIO:
    """Return a stream of the bytes of a regular file.

    Raises:
        OSError: the file is missing, may not be read, is a folder, pipe, device or socket, or lies behind a link below a confined
            folder.
        ValueError: the path has a NUL byte.
    """
    handle = open_regular(file)
    if handle is None:
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return os.fdopen(handle, "rb")


def bounded_bytes(file: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file.

    Args:
        most_bytes: largest content, bytes.

    Raises:
        OSError: as `open_regular_file`, or the content is larger.
    """
    with open_regular_file(file) as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes >> 10} KiB, the most that is read", str(file))
    return content


def setting_bytes(file: Path, setting: str, most_bytes: int) -> bytes:
    """Return the content of a regular file that a setting names.

    Args:
        setting: name of the setting, for errors.
        most_bytes: largest content, bytes.

    Raises:
        InvalidRequestError: the file cannot be read, or is larger.
    """
    try:
        return bounded_bytes(file, most_bytes)
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror}", field=setting, named=True) from problem


def descriptor_url(handle: int) -> str:
    """Return the name under which FFmpeg opens exactly the file of a descriptor, whatever the file's own name looks like."""
    return f"file:/proc/self/fd/{handle}"


@contextmanager
def open_media_file(path: Path, *, field: str) -> Iterator[int]:
    """Give a descriptor of a media file for the time of the block.

    Raises:
        MediaUnsupportedError: the file is missing, empty, not regular, or may not be read. `field` names the option at fault.
    """
    try:
        handle = open_regular(path)
    except FileNotFoundError:
        if address := _ADDRESS.match(str(path)):
            raise MediaUnsupportedError(
                f"{address[1]}://{address[2]} is an address, and a file was expected: copy the file to this machine, or name the "
                "address in a batch",
                field=field,
            ) from None
        raise MediaUnsupportedError(f"{path} does not exist; check the path", field=field) from None
    except PermissionError:
        raise MediaUnsupportedError(f"{path} may not be read; give yourself read permission on it", field=field) from None
    except ValueError:
        raise MediaUnsupportedError(
            f"{str(path)!r} has a NUL byte, which no file name can have; check the path", field=field
        ) from None
    except OSError as problem:
        raise MediaUnsupportedError(f"{path} cannot be read: {problem.strerror}", field=field) from problem
    if handle is None:
        raise MediaUnsupportedError(f"{path} is {_kind_at_path(path)}; give one media file", field=field)
    try:
        if os.fstat(handle).st_size == 0:
            raise MediaUnsupportedError(f"{path} is empty (0 bytes); copy it again from its source", field=field)
        yield handle
    finally:
        os.close(handle)


def kind_of_file(mode: int) -> str:
    """Return the kind of a file that is not regular, in words."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _kind_at_path(path: Path) -> str:
    try:
        return kind_of_file(os.lstat(path).st_mode if confined_root(Path(os.path.abspath(path))) else os.stat(path).st_mode)
    except OSError:
        return "no regular file"
