"""Files of fixed-size records, so that memory does not grow with the length of the video.

The module records the length and the digest of a job's files. A file that does not match its checksum is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from gateway.dub.state.disk import Allowance, job_folder
from services.common.array_types import Array, Float32
from services.common.errors import ContractBrokenError
from services.common.face.crops import BOX_SIZE, POSE_SIZE, HeadPose, head_to_box
from services.common.face.hands import MAX_HANDS, NUM_HAND_LANDMARKS
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.files import write_whole

LAYOUT: Final = 2
"""Version of the files in a job's folder. Notes of another version are not read, and their passes are done again."""

_MOST_BYTES: Final = 64 << 20
"""Longest note that is read, bytes: shot cuts of about eight million frames."""
_PIECE: Final = 1 << 20
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)
"""Errors of file systems on which a file cannot have a further name."""
FACE_RECORD = np.dtype(
    [
        ("frame", "<i8"),
        ("face_id", "<i4"),
        ("reason", "<i4"),
        ("confidence", "<f4"),
        ("visibility", "<f4"),
        ("covered_share", "<f4"),
        ("blink", "<f4"),
        ("box", "<f4", (4,)),
        ("scale", "<f8"),
        ("rotation", "<f8", (3, 3)),
        ("translation", "<f8", (3,)),
        ("mouth", "<f4", (NUM_MOUTH_AREA, 3)),
        ("landmarks", "<f4", (NUM_LANDMARKS, 3)),
        ("hands", "<f4", (MAX_HANDS, NUM_HAND_LANDMARKS, 2)),
        ("pixels", "u1", (BOX_SIZE, BOX_SIZE, 3)),
    ]
)
"""One face of one frame: the FaceTrack message and the render box, uint8 RGB. Hands are in box pixels; NaN: no hand."""
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
EXPRESSION_RECORD = np.dtype(
    [("offset", "<f4", (NUM_MOUTH_AREA, 3)), ("gain", "<f4"), ("still", "<f4"), ("held_open", "?"), ("seen", "?")]
)
"""Slow expression of one video frame (slow_expression.py): offset of the mouth in head space, gain of its opening, the opening up
to which nothing is scaled, whether the person holds the mouth open without speaking, and whether the mouth is seen."""
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


def new_digest() -> hashlib.blake2b:
    """Return a new digest of the kind that all files of a job are checked with: BLAKE2b of 256 bits."""
    return hashlib.blake2b(digest_size=32)


def _file_digest(descriptor: int, most: int = sys.maxsize) -> tuple[hashlib.blake2b, int]:
    """Return the digest of the first `most` bytes of an open file, and their number. The position of the file does not change."""
    digest, size = new_digest(), 0
    while piece := os.pread(descriptor, min(_PIECE, most - size), size):
        digest.update(piece)
        size += len(piece)
    return digest, size


@dataclass(frozen=True, slots=True)
class Checksum:
    """Length and digest of a finished file.

    Attributes:
        size_bytes: length of the file.
        blake2b: digest of all bytes, 64 hexadecimal digits.
    """

    size_bytes: int
    blake2b: str

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the checksum of a file, read from beginning to end; None: there is no file."""
        try:
            with path.open("rb", buffering=0) as file:
                return cls.of_descriptor(file.fileno())
        except (FileNotFoundError, IsADirectoryError):
            return None

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Self:
        """Return the checksum of an open file. The position of the file does not change."""
        digest, size = _file_digest(descriptor)
        return cls(size, digest.hexdigest())

    @classmethod
    def parsed(cls, value: object) -> Self | None:
        """Return the checksum that a note holds as [size, digest]; None: `value` is no checksum."""
        match value:
            case [int(size), str(digest)] if size >= 0 and not isinstance(size, bool):
                return cls(size, digest)
        return None


def write_note(path: Path, note: Mapping[str, Any]) -> None:
    """Write a small JSON object with its digest. A reader sees either the whole new file or the old file.

    Raises:
        StorageFullError: no space is left; the file has not changed.
    """
    with job_folder(path.parent):
        write_whole(path, json.dumps({"layout": LAYOUT, "blake2b": _digest_of(note), "note": dict(note)}).encode())


def read_note(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that `write_note` wrote; None: there is no file, or the file is damaged."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    match document:
        case {"layout": int(layout), "blake2b": str(digest), "note": dict(note)}:
            return note if layout == LAYOUT and digest == _digest_of(note) else None
    return None


def _digest_of(note: Mapping[str, Any]) -> str:
    digest = new_digest()
    digest.update(json.dumps(dict(note), sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def link_file(source: Path, target: Path) -> None:
    """Give a file a further name, in place of a file of that name. On a file system without links, the file is copied.

    Raises:
        OSError: the file is gone, or cannot be linked or copied.
    """
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        try:
            os.link(source, part)
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            with source.open("rb") as read, part.open("xb") as written:
                shutil.copyfileobj(read, written, _PIECE)
        os.replace(part, target)
    finally:
        # Nothing is renamed if both names are of one file.
        part.unlink(missing_ok=True)


class RecordFile:
    """File of records of one dtype that are appended in order and read by row. Rows are numbered from 0.

    Args:
        path: the file. Existing records stay.
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
            allowance.used += self._size

    def append(self, rows: Array) -> None:
        """Append rows of the file's dtype.

        Raises:
            InvalidRequestError: the records of the job would take more disk space than they may.
            StorageFullError: no space is left. Raised here, or when the appended rows are read or synced.
            ContractBrokenError: the rows have another dtype.
        """
        if rows.dtype != self.dtype:
            raise ContractBrokenError(f"{self.path.name}: records of another layout")
        data = rows.tobytes()
        if self._allowance is not None:
            self._allowance.take(len(data))
        with self._in_folder(self.path.parent):
            self._file.write(data)
        if self._digest is not None:
            self._digest.update(data)
        self._size += len(data)
        self.num_rows += rows.size

    def checksum(self) -> Checksum:
        """Return length and digest of all records."""
        if self._digest is not None:
            return Checksum(self._size, self._digest.hexdigest())
        return self.checksum_on_disk()

    def checksum_on_disk(self) -> Checksum:
        """Return length and digest of the file, read from beginning to end."""
        with self._in_folder(self.path.parent):
            self._file.flush()
        return Checksum.of_descriptor(self._file.fileno())

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

    def take_over(self, source: Path) -> None:
        """Take the rows of another file in place of all rows. The file is the other file, under a further name, until `clear`.

        Raises:
            InvalidRequestError: the records of the job would take more disk space than they may.
            OSError: the file cannot be read or linked.
        """
        with self._in_folder(self.path.parent):
            link_file(source, self.path)
        linked = self.path.open("a+b")
        self._file.close()
        self._file = linked
        size = os.fstat(linked.fileno()).st_size
        if self._allowance is not None:
            # A further name takes no space.
            self._allowance.used += size - self._size
        self._size, self.num_rows, self._digest = size, size // self.dtype.itemsize, None

    def clear(self) -> None:
        """Remove all rows. Other names of the file keep theirs."""
        if os.fstat(self._file.fileno()).st_nlink > 1:
            self._file.close()
            self.path.unlink()
            self._file = self.path.open("a+b")
        self._file.truncate(0)
        if self._allowance is not None:
            self._allowance.give_back(self._size)
        self._size, self.num_rows, self._digest = 0, 0, new_digest()

    def keep(self, checksum: Checksum) -> bool:
        """Keep only the first rows, of which a checksum is given. If they have changed, no row stays.

        Returns:
            Whether the first rows are there.
        """
        if os.fstat(self._file.fileno()).st_nlink > 1:
            # Rows of another job are complete, or none: nothing of them is removed.
            self.clear()
            return False
        digest, size = _file_digest(self._file.fileno(), checksum.size_bytes)
        if Checksum(size, digest.hexdigest()) != checksum or size % self.dtype.itemsize:
            self.clear()
            return False
        self._file.truncate(size)
        if self._allowance is not None:
            self._allowance.give_back(self._size - size)
        self._size, self.num_rows, self._digest = size, size // self.dtype.itemsize, digest
        return True

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


@dataclass(frozen=True, slots=True)
class RecordSpan:
    """Consecutive rows of a record file, numbered from 0.

    Attributes:
        first: row of the file that is row 0.
        num_rows: number of rows.
    """

    records: RecordFile
    first: int
    num_rows: int

    def read(self, begin: int, end: int) -> Array:
        """Return the rows begin to end - 1, as far as they exist."""
        return self.records.read(self.first + max(0, begin), self.first + min(end, self.num_rows))


def pose_of(record: Any) -> HeadPose:
    """Return the head pose of one FACE_RECORD."""
    return HeadPose(float(record["scale"]), record["rotation"].copy(), record["translation"].copy())


def mouth_in_box(record: Any) -> Float32:
    """Return the mouth-area landmarks of one FACE_RECORD, float32 [59, 2], box pixels."""
    return head_to_box(record["mouth"], pose_of(record))
