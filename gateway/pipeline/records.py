"""Files of fixed-size records, so that memory does not grow with the length of the film."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from gateway.pipeline.allowance import Allowance
from gateway.pipeline.disk import job_folder
from gateway.pipeline.seals import Seal, new_digest
from services.common.array_types import Array
from services.common.errors import ContractBroken
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.face.head_pose_vectors import POSE_SIZE
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA

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
"""One face of one frame: the FaceTrack message and the render box, uint8 RGB."""

MOTION_RECORD = np.dtype(
    [
        ("mouth", "<f4", (NUM_MOUTH_AREA, 3)),
        ("speech_probability", "<f4"),
        ("pose", "<f8", (POSE_SIZE,)),
        ("blink", "<f4"),
    ]
)
"""Motion of one video frame: the mouth in head space, the head-pose vector, and how far the eyes are shut (0 to 1). If the method
does not move the head, the pose is NaN."""

EXPRESSION_RECORD = np.dtype([("offset", "<f4", (NUM_MOUTH_AREA, 3)), ("gain", "<f4")])
"""Slow expression of one video frame (slow_expression.py): offset of the mouth in head space, and gain of its opening."""

FEATURE_RECORD = np.dtype(
    [
        ("mel", "<f4", (4, 80)),
        ("posteriorgram", "<f4", (4, 40)),
        ("identity_removed", "<f4", (4, 20)),
        ("speech_states", "<f4", (192,)),
        ("speech_probability", "<f4"),
    ]
)
"""Audio features of one frame of the motion grid; zeros for kinds that were not extracted."""


class RecordFile:
    """File of records of one dtype that are appended in order and read by row. Rows are numbered from 0.

    Args:
        path: the file. Existing records stay.
        dtype: dtype of the records.
        allowance: disk space of the job; None: no limit.
        in_folder: returns the context of code that writes to the file's folder, which says what to do if the disk is full.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        allowance: Allowance | None = None,
        in_folder: Callable[[Path], AbstractContextManager[None]] = job_folder,
    ) -> None:
        self.path = path
        self.dtype = dtype
        self._allowance = allowance
        self._in_folder = in_folder
        self._file = path.open("a+b")
        self._size = os.fstat(self._file.fileno()).st_size
        # The digest of records of an earlier run is found by reading them.
        self._digest = new_digest() if self._size == 0 else None
        self.num_rows = self._size // dtype.itemsize
        if allowance is not None:
            allowance.taken += self._size

    def append(self, rows: Array) -> None:
        """Append rows of the file's dtype.

        Raises:
            InvalidRequest: the records of the job would take more disk space than they may.
            StorageFull: no space is left. Raised here, or when the appended rows are read or synced.
            ContractBroken: the rows have another dtype.
        """
        if rows.dtype != self.dtype:
            raise ContractBroken(f"{self.path.name}: records of another layout")
        data = rows.tobytes()
        if self._allowance is not None:
            self._allowance.take(len(data))
        with self._in_folder(self.path.parent):
            self._file.write(data)
        if self._digest is not None:
            self._digest.update(data)
        self._size += len(data)
        self.num_rows += rows.size

    def seal(self) -> Seal:
        """Return length and digest of all records."""
        if self._digest is not None:
            return Seal(self._size, self._digest.hexdigest())
        return self.seal_on_disk()

    def seal_on_disk(self) -> Seal:
        """Return length and digest of the file, read from beginning to end."""
        with self._in_folder(self.path.parent):
            self._file.flush()
        return Seal.of_descriptor(self._file.fileno())

    def read(self, begin: int, end: int) -> Array:
        """Return the rows begin to end - 1, as far as they exist."""
        begin, end = max(0, begin), min(end, self.num_rows)
        with self._in_folder(self.path.parent):
            self._file.flush()
        count = max(0, end - begin)
        data = os.pread(self._file.fileno(), count * self.dtype.itemsize, begin * self.dtype.itemsize)
        return np.frombuffer(data, dtype=self.dtype, count=count)

    def read_rows(self, rows: Sequence[int]) -> Array:
        """Return rows in the given order. Neighbouring rows are read together."""
        parts: list[Array] = []
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or rows[stop] != rows[stop - 1] + 1:
                parts.append(self.read(rows[start], rows[stop - 1] + 1))
                start = stop
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def clear(self) -> None:
        """Remove all rows."""
        self._file.truncate(0)
        if self._allowance is not None:
            self._allowance.give_back(self._size)
        self._size, self.num_rows, self._digest = 0, 0, new_digest()

    def sync(self) -> None:
        """Write all appended rows to the disk."""
        with self._in_folder(self.path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. The appended rows stay."""
        with self._in_folder(self.path.parent):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def pose_of(record: Any) -> HeadPose:
    """Return the head pose of one FACE_RECORD."""
    return HeadPose(float(record["scale"]), record["rotation"].copy(), record["translation"].copy())
