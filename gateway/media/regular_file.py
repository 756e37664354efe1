"""Opens media files by path. Never waits on a pipe, never opens a device, and follows no link below a confined folder.

Callers pass on the descriptor (`descriptor_url`) in place of the path, which may name another file a moment later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.confinement import confined_root, open_regular
from services.common.errors import MediaUnsupported


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
        return kind_of_mode(os.lstat(path).st_mode if confined_root(Path(os.path.abspath(path))) else os.stat(path).st_mode)
    except OSError:
        return "no regular file"
