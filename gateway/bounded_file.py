"""Files that users name, read with a bound: never waits on a pipe, never reads a device without an end, and follows no link below a
confined folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

from gateway.confinement import open_regular
from services.common.errors import InvalidRequest


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
        file: the file.
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
        file: the file.
        setting: name of the setting, for errors.
        most_bytes: largest content, bytes.

    Raises:
        InvalidRequest: the file cannot be read, or is larger.
    """
    try:
        return bounded_bytes(file, most_bytes)
    except OSError as problem:
        raise InvalidRequest(f"{setting}: {file} cannot be read: {problem.strerror}", field=setting) from problem
