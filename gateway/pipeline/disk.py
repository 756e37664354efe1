"""A full disk under a job's folder, told as what it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import StorageFull

# A quota and a file size limit are to the user what a full disk is.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def job_folder(folder: Path) -> Iterator[None]:
    """Around whatever writes to a job's folder.

    Raises:
        StorageFull: no space is left there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(
            f"no space left for the job's records in {folder}: free some, or point DUBSTAGE_DATA_DIR elsewhere",
            subject=str(folder),
        ) from error
