"""The folder of a report: the check before the work begins, and the filling when the report is whole."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from services.common.errors import DubstageError, InvalidRequestError, StorageFullError
from services.common.files import FULL_DISK

PAGE: Final = "index.html"
_MARK: Final = b"<footer>dubstage</footer>"
"""At the end of every page of ours (templates/base.html.j2)."""
_PARTIAL: Final = ".dubstage-report-"
_OLD_SECONDS: Final = 24 * 3600
"""A partial report that is older belongs to a process that was killed."""


def check_report_folder(folder: Path, files: Sequence[Path] = ()) -> None:
    """Check the path of a report before the work begins.

    Args:
        folder: folder of the report. Missing folders above it are made when the report is written.
        files: files that the command reads and writes.

    Raises:
        InvalidRequestError: `folder` is a file, cannot be written, has a name that is too long, holds other files than a report,
            holds one of `files`, or is or lies below one of `files`.
    """
    with _translating_errors(folder):
        existing = _existing(folder)
        if existing != _real(folder):
            _check_names(folder, existing)
        if not existing.is_dir():
            raise InvalidRequestError(f"the report {folder}: {existing} is a file; give the name of a folder", field="report")
        if existing == _real(folder) and any(existing.iterdir()) and not _is_report(existing):
            raise InvalidRequestError(
                f"the report {folder}: this folder exists and holds other files than a report; give a new or an empty folder",
                field="report",
            )
        for file in files:
            if _real(folder).is_relative_to(_real(file)):
                raise InvalidRequestError(
                    f"the report {folder}: {file} is a file of this command; give the name of another folder", field="report"
                )
            if _real(file.parent) == _real(folder):
                raise InvalidRequestError(
                    f"the report {folder}: {file} lies in this folder, which the report fills with its own files; "
                    "give the report another folder",
                    field="report",
                )
        # The system is asked, because mode bits are not enough: root ignores them, and read-only mounts and /proc refuse all the
        # same.
        probe = _partial_in(existing)
        probe.mkdir()
        probe.rmdir()


@contextmanager
def report_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder for a report's files. They move to the report's folder when the block ends without an error.

    In a folder that exists already, each file replaces the older file of the same name, also in folders below, the page last.
    Other files stay.

    Raises:
        StorageFullError, InvalidRequestError: the files cannot be written. No new file is left.
    """
    with _translating_errors(folder):
        target = _real(folder)
        exists = target.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target if exists else target.parent
        _sweep(beside)
        partial = _partial_in(beside)
        partial.mkdir()
        try:
            yield partial
            if exists:
                _replace_files(partial, target)
            else:
                os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _replace_files(partial: Path, target: Path) -> None:
    page = partial / PAGE
    for file in sorted(partial.rglob("*"), key=lambda file: (file == page, file)):
        path = target / file.relative_to(partial)
        if file.is_dir():
            path.mkdir(exist_ok=True)
        else:
            os.replace(file, path)


@contextmanager
def _translating_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except DubstageError:
        raise
    except OSError as problem:
        if problem.errno in FULL_DISK:
            raise StorageFullError(
                f"no space left to write the report {folder}; free some space, or choose another folder", subject=str(folder)
            ) from problem
        why = problem.strerror or str(problem)
        raise InvalidRequestError(
            f"the report {folder} cannot be written: {why}; choose another folder", field="report"
        ) from problem


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _existing(folder: Path) -> Path:
    """Return the folder itself if it exists, otherwise the nearest path above it that exists."""
    path = _real(folder)
    while True:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        except OSError as problem:
            if problem.errno != errno.ENAMETOOLONG:
                raise
            path = path.parent
        else:
            return path


def _check_names(folder: Path, existing: Path) -> None:
    longest = os.pathconf(existing, "PC_NAME_MAX")
    for name in _real(folder).relative_to(existing).parts:
        if len(os.fsencode(name)) > longest:
            raise InvalidRequestError(
                f"the report {folder}: a name has at most {longest} bytes here, this name has {len(os.fsencode(name))}",
                field="report",
            )


def _is_report(folder: Path) -> bool:
    page = folder / PAGE
    if not page.is_file():
        return False
    with page.open("rb") as file:
        file.seek(max(0, page.stat().st_size - 200))
        return _MARK in file.read(200)


def _partial_in(folder: Path) -> Path:
    # Folders of the module tempfile are closed to other users, and a report is made to be shown.
    return folder / f"{_PARTIAL}{secrets.token_hex(8)}"


def _sweep(folder: Path) -> None:
    """Remove the temporary folders that killed processes left."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if partial.is_dir() and not partial.is_symlink() and time.time() - partial.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)
