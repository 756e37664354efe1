"""Fixed-size records on disk, so that memory does not grow with the length of the film."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gateway.pipeline.allowance import Allowance
from gateway.pipeline.disk import job_folder
from gateway.pipeline.seals import Seal, new_digest
from services.common.crops import BOX_SIZE, HeadPose
from services.common.errors import ContractBroken
from services.common.head_pose_vectors import POSE_SIZE
from services.common.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA

FACE_RECORD = np.dtype(
    [
        ("frame", "<i8"),
        ("face_id", "<i4"),
        ("reason", "<i4"),
        ("confidence", "<f4"),
        ("visibility", "<f4"),
        ("blink", "<f4"),
        ("box", "<f4", (4,)),
        ("scale", "<f8"),
        ("rotation", "<f8", (3, 3)),
        ("translation", "<f8", (3,)),
        ("mouth", "<f4", (NUM_MOUTH_AREA, 3)),
        ("landmarks", "<f4", (NUM_LANDMARKS, 3)),
        ("pixels", "u1", (BOX_SIZE, BOX_SIZE, 3)),
    ]
)
"""One face of one frame: the FaceTrack of the contract and its render box, uint8 RGB."""

MOTION_RECORD = np.dtype(
    [
        ("mouth", "<f4", (NUM_MOUTH_AREA, 3)),
        ("speech_probability", "<f4"),
        ("pose", "<f8", (POSE_SIZE,)),
        ("blink", "<f4"),
    ]
)
"""The motion of one video frame: the mouth in head space; where the method moves the head, its pose vector (else NaN) and how far
the eyes are shut."""

FEATURE_RECORD = np.dtype(
    [
        ("mel", "<f4", (4, 80)),
        ("posteriorgram", "<f4", (4, 40)),
        ("identity_removed", "<f4", (4, 20)),
        ("speech_probability", "<f4"),
    ]
)
"""The audio features of one frame of the motion grid; zeros where the method does not hear a kind."""


class RecordFile:
    """Records of one dtype, appended in order, then read by row. Rows are numbered from 0.

    Args:
        path: the file; records that lie there already stay.
        dtype: of the records.
        allowance: how much of the disk the job may fill; None: any.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], allowance: Allowance | None = None) -> None:
        self.path = path
        self.dtype = dtype
        self._allowance = allowance
        self._file = path.open("a+b")
        self._size = os.fstat(self._file.fileno()).st_size
        # Of what an earlier run wrote, only reading tells the digest.
        self._digest = new_digest() if self._size == 0 else None
        self.num_rows = self._size // dtype.itemsize
        if allowance is not None:
            allowance.taken += self._size

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write rows of the file's dtype at the end.

        Raises:
            InvalidRequest: the job's records become longer than they may.
            StorageFull: no space left, here or when what was appended is read or synced.
        """
        if rows.dtype != self.dtype:
            raise ContractBroken(f"{self.path.name}: records of another layout")
        data = rows.tobytes()
        if self._allowance is not None:
            self._allowance.take(len(data))
        with job_folder(self.path.parent):
            self._file.write(data)
        if self._digest is not None:
            self._digest.update(data)
        self._size += len(data)
        self.num_rows += rows.size

    def seal(self) -> Seal:
        """Length and digest of all records."""
        if self._digest is not None:
            return Seal(self._size, self._digest.hexdigest())
        return self.seal_on_disk()

    def seal_on_disk(self) -> Seal:
        """Length and digest of what the file holds now, read from its beginning to its end."""
        with job_folder(self.path.parent):
            self._file.flush()
        return Seal.of_descriptor(self._file.fileno())

    def read(self, begin: int, end: int) -> npt.NDArray[Any]:
        """Rows begin .. end - 1, clipped to those that there are."""
        begin, end = max(0, begin), min(end, self.num_rows)
        with job_folder(self.path.parent):
            self._file.flush()
        count = max(0, end - begin)
        data = os.pread(self._file.fileno(), count * self.dtype.itemsize, begin * self.dtype.itemsize)
        return np.frombuffer(data, dtype=self.dtype, count=count)

    def read_rows(self, rows: Sequence[int]) -> npt.NDArray[Any]:
        """Rows in the order asked for; neighbours are read together."""
        parts: list[npt.NDArray[Any]] = []
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or rows[stop] != rows[stop - 1] + 1:
                parts.append(self.read(rows[start], rows[stop - 1] + 1))
                start = stop
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def clear(self) -> None:
        """Drop all rows."""
        self._file.truncate(0)
        if self._allowance is not None:
            self._allowance.give_back(self._size)
        self._size, self.num_rows, self._digest = 0, 0, new_digest()

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        with job_folder(self.path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what was appended stays."""
        with job_folder(self.path.parent):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def pose_of(record: Any) -> HeadPose:
    """The head pose of one FACE_RECORD."""
    return HeadPose(float(record["scale"]), record["rotation"].copy(), record["translation"].copy())
