"""Which errors of the operating system mean that a disk is full, and what the user is told then."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import StorageFull

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers. For the user, a quota or a file size limit is a full disk."""


@contextmanager
def told_of_full_disk(message: str, subject: Path) -> Iterator[None]:
    """Translate errors of a full disk, and of no other kind.

    Args:
        message: what is full, and what the user can do.
        subject: the file or folder that has no space.

    Raises:
        StorageFull: no space is left.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in FULL_DISK:
            raise
        raise StorageFull(message, subject=str(subject)) from problem
