"""Checks of the place of a film before any work is done, and of an existing file that the film would replace."""

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
"""Most bytes of a file's name, on every usual file system."""


def check_place(
    output: Path,
    *,
    footage: Path | None = None,
    speech: Path | None = None,
    reference: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Check that `output` can be written, before any work is done.

    Args:
        output: file to write.
        footage, speech, reference: files that are read meanwhile.
        overwrite: whether an existing file of any kind may be replaced. Otherwise only a film that dubstage wrote may be.

    Raises:
        InvalidRequest: the folder is missing or may not be written, the name is too long or names a folder, a link or a device, or
            the file is an input or may not be replaced.
    """
    before = existing(output)
    folder = output.parent
    if not folder.is_dir():
        raise _refused(f"{output}: the folder {folder} does not exist; create it first")
    for name, source in (("footage", footage), ("speech", speech), ("reference", reference)):
        if source is not None and _same(output, source):
            raise _refused(f"{output} is the {name} itself; give another name to the output")
    check_replaceable(output, before, overwrite=overwrite)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(f"{output}: the folder {folder} may not be written; choose another")


def existing(output: Path) -> os.stat_result | None:
    """Return the facts of what lies under the output's name; None: nothing. Symbolic links are not followed.

    Raises:
        InvalidRequest: no file can have such a name.
    """
    try:
        return os.lstat(output)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise InvalidRequest(
            f"{str(output)!r} has a NUL byte, which no file name can have; give another name", field="output"
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
    """Check that a file may be replaced: it must be a regular file and, without `overwrite`, a film of dubstage.

    Raises:
        InvalidRequest: the file may not be replaced.
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
        raise _refused(f"{output} exists and is no film of dubstage; give another name, or replace the file with --overwrite")


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
