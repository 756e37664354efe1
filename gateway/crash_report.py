"""Errors outside of `services.common.errors`, as a user reads them: faults of the machine, and bugs of dubstage."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from typing import Final

_MACHINE_ERRORS: Final = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENAMETOOLONG, errno.ENOMEM, errno.ELOOP, errno.ENOTDIR,
}  # fmt: skip
"""Error numbers of files and memory. The user must remove the cause, which lies outside of dubstage."""


def machine_fault(error: Exception) -> str | None:
    """Return what is wrong with the machine, such as `/data: No space left on device`; None: the machine is not at fault."""
    if not isinstance(error, OSError) or error.errno not in _MACHINE_ERRORS:
        return None
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f"{name or 'a file'}: {error.strerror}"


def write_traceback() -> tuple[str, str]:
    """Write the traceback of the error that is being handled to a temporary file.

    Returns:
        The path of the file and the text of the traceback. The path is empty if no file can be written.
    """
    text = traceback.format_exc()
    try:
        descriptor, name = tempfile.mkstemp(prefix="dubstage-error-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "", text
    return name, text
