"""New files of commands: written whole, and never over another file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from services.common.errors import InvalidRequest


def check_new_file(file: Path) -> None:
    """Check before any work that a file does not exist and that its folder does.

    Raises:
        InvalidRequest: the file exists, or its folder does not.
    """
    if os.path.lexists(file):
        raise InvalidRequest(f"{file} exists: give another name", field="output")
    if not file.parent.is_dir():
        raise InvalidRequest(f"{file} cannot be written: there is no folder {file.parent}", field="output")


def write_new_file(file: Path, content: bytes) -> None:
    """Write a new file: under a temporary name first, so that no half-written file stays.

    Raises:
        InvalidRequest: the file exists or cannot be written.
    """
    partial = file.with_name(f".{file.name[:100]}.{secrets.token_hex(8)}.partial")
    try:
        partial.write_bytes(content)
        os.link(partial, file)
    except OSError as problem:
        raise InvalidRequest(f"{file} cannot be written: {problem.strerror or problem}", field="output") from problem
    finally:
        with suppress(OSError):  # the folder may be none
            partial.unlink()
