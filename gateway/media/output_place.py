"""Where a film may be written: what is refused before any work is done, and what an existing file must be to be replaced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from gateway.media.inspection import inspect_tags
from gateway.media.marking import is_marked
from gateway.media.regular_file import kind_of_mode
from services.common.errors import InvalidRequest, MediaUnsupported

_LONGEST_NAME: Final = 255
"""Bytes of a file's name, on every usual file system."""


def check_place(output: Path, *, footage: Path | None = None, speech: Path | None = None, overwrite: bool = False) -> None:
    """Refuses places where `output` cannot be written, before any work is done.

    Args:
        output: file to write.
        footage, speech: what is read meanwhile.
        overwrite: an existing file is replaced whatever it is; otherwise only a film that dubstage wrote is.

    Raises:
        InvalidRequest: its folder is missing or may not be written, its name is too long, it is a folder, a link or a
            device, it is one of the inputs, or it exists and may not be replaced.
    """
    before = existing(output)
    folder = output.parent
    if not folder.is_dir():
        raise _refused(f"{output}: the folder {folder} does not exist; create it first")
    for name, source in (("footage", footage), ("speech", speech)):
        if source is not None and _same(output, source):
            raise _refused(f"{output} is the {name} itself; give another name to the output")
    check_replaceable(output, before, overwrite=overwrite)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(f"{output}: the folder {folder} may not be written; choose another")


def existing(output: Path) -> os.stat_result | None:
    """What lies under the output's name, a link itself rather than what it leads to; None for nothing.

    Raises:
        InvalidRequest: there can be no such name.
    """
    try:
        return os.lstat(output)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise InvalidRequest(
            f"{str(output)!r} has a NUL byte in it, as no file name has; give another name", field="output"
        ) from None
    except OSError as problem:
        if problem.errno == errno.ENAMETOOLONG:
            length = len(os.fsencode(output.name))
            raise InvalidRequest(
                f"{output.name[:40]}...: the name is {length} bytes long, a name has {_LONGEST_NAME} at most, a path 4095; "
                "give a shorter one",
                field="output",
            ) from None
        raise InvalidRequest(f"{output} cannot be written: {problem.strerror}", field="output") from problem


def check_replaceable(output: Path, there: os.stat_result | None, *, overwrite: bool) -> None:
    """Refuses to replace what is no file, and, without `overwrite`, what is no film of dubstage.

    Raises:
        InvalidRequest: it may not be replaced.
    """
    if there is None:
        return
    if stat.S_ISDIR(there.st_mode):
        raise _refused(f"{output} is a folder; give the name of a film file")
    if stat.S_ISLNK(there.st_mode):
        raise _refused(f"{output} is a symbolic link; give the name of the file itself, or remove the link")
    if not stat.S_ISREG(there.st_mode):
        raise _refused(f"{output} is {kind_of_mode(there.st_mode)}; give the name of a film file")
    if not overwrite and not _made_by_dubstage(output):
        raise _refused(f"{output} exists and is no film of dubstage; give another name, or allow that it is replaced (--overwrite)")


def _made_by_dubstage(path: Path) -> bool:
    try:
        return is_marked(inspect_tags(path))
    except MediaUnsupported:
        return False


def _same(output: Path, source: Path) -> bool:
    try:
        if output.exists() and source.exists() and output.samefile(source):
            return True
        return output.resolve() == source.resolve()
    except (OSError, RuntimeError):  # a loop of links: refused as a link
        return False


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest(problem, field="output")
