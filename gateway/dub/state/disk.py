"""Disk space of a job: the check before a pass and while records are written, and the errors of a full disk."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.errors import InvalidRequestError, StorageFullError
from services.common.files import translating_full_disk

MAX_JOB_BYTES: Final = 200 << 30
"""Default for the most bytes in a job's folder."""
KEPT_FREE_BYTES: Final = 256 << 20
"""Bytes that a job leaves free on its disk, for the database, the output and other programs. On a small disk: a twentieth."""
_LOOK_EVERY: Final = 64 << 20
"""Bytes between two checks of the free space."""


def job_folder(folder: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to a job's folder.

    Raises:
        StorageFullError: no space is left in the folder.
    """
    return translating_full_disk(
        f"no space left for the job's records in {folder}: free some, or point DUBSTAGE_DATA_DIR elsewhere", folder
    )


@dataclass(frozen=True, slots=True)
class JobDisk:
    """Limit of the disk space of a job, and whether the job shares its analysis of footage.

    Attributes:
        max_bytes: most bytes of the job's folder.
        keeps_analysis: whether the analysis of footage of one file is kept for further work with the footage, and taken over from
            earlier work.
    """

    max_bytes: int = MAX_JOB_BYTES
    keeps_analysis: bool = False


@dataclass(slots=True)
class Allowance:
    """Disk space of the records of one job.

    Attributes:
        folder: the job's folder.
        max_bytes: most bytes of all records together.
        used: bytes of all records so far.
    """

    folder: Path
    max_bytes: int = MAX_JOB_BYTES
    used: int = 0
    _unseen: int = field(default=0, repr=False)

    def check(self, num_bytes: int, what: str) -> None:
        """Check that there is room for the records of a pass.

        Args:
            num_bytes: fewest bytes that the records take.
            what: name of the records, for the error.

        Raises:
            InvalidRequestError: the job would be larger than the setting allows.
            StorageFullError: the disk has too little free space.
        """
        if self.used + num_bytes > self.max_bytes:
            raise InvalidRequestError(
                f"{what} would take {shown_bytes(num_bytes)} on disk, a job may take {shown_bytes(self.max_bytes)}: is the length "
                "of the footage and of the speech right? Otherwise raise DUBSTAGE_MAX_JOB_BYTES",
                field="footage",
            )
        self._check_free(num_bytes, what)

    def take(self, num_bytes: int) -> None:
        """Count bytes that will be written now.

        Raises:
            InvalidRequestError: the job becomes larger than the setting allows.
            StorageFullError: the disk is nearly full.
        """
        if self.used + num_bytes > self.max_bytes:
            raise InvalidRequestError(
                f"the job's records are longer than the {shown_bytes(self.max_bytes)} that a job may take: cut the footage, or "
                "raise DUBSTAGE_MAX_JOB_BYTES",
                field="footage",
            )
        self._unseen += num_bytes
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self._check_free(num_bytes, "the next records")
        self.used += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Count bytes that were removed."""
        self.used -= num_bytes

    def _check_free(self, num_bytes: int, what: str) -> None:
        free = fillable_bytes(self.folder)
        if free < num_bytes:
            raise StorageFullError(
                f"no space left for the job's records: {what} would take {shown_bytes(num_bytes)} in {self.folder}, of which "
                f"{shown_bytes(free)} may be filled: free some (`dubstage jobs clean`), or point "
                "DUBSTAGE_DATA_DIR elsewhere",
                subject=str(self.folder),
            )


def fillable_bytes(folder: Path) -> int:
    """Return the free bytes of a folder's disk, without those that a job leaves free."""
    usage = shutil.disk_usage(folder)
    return max(0, usage.free - min(KEPT_FREE_BYTES, usage.total // 20))


def shown_bytes(num_bytes: int) -> str:
    """Return a size with three digits, such as `1.25 GB`."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000.0:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:,.1f} TB"
