"""Files of results: the check of their place before the work begins, and the writing as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.common.errors import InvalidRequest


def check_writable(path: Path, field: str) -> None:
    """Check that a file can be written. Missing folders are no obstacle: `write_whole` creates them.

    Args:
        path: the file.
        field: option that names the file.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    with told(path, field):
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        # The name may be too long, also if a folder above is still missing.
        with suppress(FileNotFoundError):
            (folder / path.name).lstat()
        _partial_beside(folder / path.name).unlink()


def write_whole(path: Path, text: str, field: str) -> None:
    """Write a text file. Missing folders are created. The file is replaced as a whole, or keeps its old content.

    Args:
        path: the file.
        text: the content.
        field: option that names the file.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    with told(path, field):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_beside(path)
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def told(path: Path, field: str) -> Iterator[None]:
    """Turn an error of the operating system into a message that names the file.

    Raises:
        InvalidRequest: the block raised an OSError.
    """
    try:
        yield
    except OSError as problem:
        raise InvalidRequest(
            f"{path} cannot be written: {problem.strerror or problem}; give another name", field=field
        ) from problem


def _partial_beside(path: Path) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".dubstage-", suffix=path.suffix)
    # mkstemp makes a file that no other user may read. A new file gets the usual permissions.
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(descriptor, 0o666 & ~mask)
    os.close(descriptor)
    return Path(name)
