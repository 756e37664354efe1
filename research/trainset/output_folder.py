"""The folder of a training set during a build: its lock, the shards of its clips, and the list of what was left out.

The files of a clip are written as a whole or not at all. Notes of each finished clip state the file that the clip was made from,
the networks that made the clip, and facts of its pieces. A video or recording of more than a minute is cut into pieces. Each piece
is a clip of the training set.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from research.training.folder_lock import locked_folder
from research.training.trainset import (
    CLIPS_A_SHARD,
    FORMAT_VERSION,
    INCOMPLETE,
    REFUSED,
    Part,
    identity_path,
    part_path,
    shard_name,
)
from services.common.array_types import Array
from services.common.files import translating_full_disk, write_whole
from services.common.store.tensor_bytes import encode_arrays

BUILT: Final[tuple[Part, ...]] = ("track", "sound", "speech")
PREPARED: Final[tuple[Part, ...]] = ("phones", "expression")
_ENDING: Final = ".clip.json"
_WORKING: Final = ".working"


class DamagedFileError(Exception):
    """A file of the set cannot be read."""


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The files of one clip.

    Attributes:
        folder: folder of the training set.
    """

    folder: Path
    shard: str
    name: str

    def path(self, part: Part) -> Path:
        """Return the path of a file."""
        return part_path(self.folder, self.shard, self.name, part)

    def put(self, part: Part, arrays: Mapping[str, Array], about: Mapping[str, str]) -> None:
        """Write a file with its arrays and metadata.

        Raises:
            OSError: the file cannot be written. Nothing of it is left, so that a full disk has room for the manifest.
        """
        write_whole(self.path(part), encode_arrays(arrays, {"format": FORMAT_VERSION, **about}))

    def get(self, part: Part, *names: str) -> dict[str, Any]:
        """Return arrays of a file.

        Raises:
            DamagedFileError: the file is missing or damaged, or lacks an array.
        """
        try:
            with safe_open(self.path(part), "numpy") as file:
                return {name: np.asarray(file.get_tensor(name)) for name in names}
        except (OSError, SafetensorError) as problem:
            raise DamagedFileError(str(problem)) from problem

    def drop(self, *parts: Part) -> None:
        """Remove files."""
        for part in parts:
            self.path(part).unlink(missing_ok=True)

    def phones_origin(self) -> str:
        """Return the origin of the clip's phone labels; empty: there are none."""
        path = self.path("phones")
        if not path.is_file():
            return ""
        try:
            with safe_open(path, "numpy") as file:
                return str((file.metadata() or {}).get("origin", ""))
        except (OSError, SafetensorError):
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceFacts:
    """Facts of one piece.

    Attributes:
        first_frame: frame of the footage at 25 frames/s at which the piece begins.
        frames: number of frames at 25 frames/s.
        usable_frames: number of these frames that show the mouth well; 0 without a face.
        face_px: median width of the face, pixels of the footage; 0 without a face.
        transcript: spoken words; empty: unknown.
        lag_frames, lag_confidence: answer of EstimateLag for this piece alone; confidence -1: not measured.
    """

    name: str
    first_frame: int
    frames: int
    usable_frames: int = 0
    face_px: float = 0.0
    transcript: str = ""
    lag_frames: int = 0
    lag_confidence: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """A finished clip.

    Attributes:
        file: path below the folder of the clips.
        shard: name of the clip's shard.
        sha256: SHA-256 of the file, hexadecimal.
        size: length of the file, bytes.
        changed_ns: time of the file's last change, nanoseconds. While size and time stay, the file is not read again.
        text: digest of what is said, of source and speaker.
        audio_networks: digest of the networks that extracted the features.
        has_face: whether the pieces have tracks.
        is_cut: whether the clip was longer than one piece.
        pieces: the pieces in the training set.
        lag_model: digest of the model that measured the lag; empty: not measured.
        left_out: by name, why a piece was left out.
        format: version of the layout.
    """

    file: str
    shard: str
    sha256: str
    size: int
    changed_ns: int
    text: str
    audio_networks: str
    has_face: bool
    is_cut: bool
    pieces: tuple[PieceFacts, ...]
    lag_model: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT_VERSION


_RECORD: TypeAdapter[ClipRecord] = TypeAdapter(ClipRecord)


def record_path(folder: Path, shard: str, name: str) -> Path:
    """Return the path of a clip's record."""
    return folder / "shards" / shard / f"{name}{_ENDING}"


def recorded_shards(folder: Path) -> dict[str, str]:
    """Return the shard of each clip that has a record, by the clip's name."""
    return {path.name.removesuffix(_ENDING): path.parent.name for path in sorted((folder / "shards").glob(f"*/*{_ENDING}"))}


def read_record(folder: Path, shard: str, name: str) -> ClipRecord | None:
    """Return the record of a clip; None: there is none of this version."""
    try:
        record = _RECORD.validate_json(record_path(folder, shard, name).read_bytes())
    except (OSError, ValidationError):
        return None
    return record if record.format == FORMAT_VERSION else None


def write_record(folder: Path, name: str, record: ClipRecord) -> None:
    """Write the record of a clip. The record comes after all other files: it marks the clip as finished."""
    write_whole(record_path(folder, record.shard, name), f"{json.dumps(asdict(record), ensure_ascii=False)}\n".encode())


def files_of(folder: Path, record: ClipRecord, parts: tuple[Part, ...]) -> Iterator[Path]:
    """Yield the paths of some parts of all pieces, whether they exist or not."""
    for piece in record.pieces:
        for part in parts:
            if record.has_face or part not in ("track", "expression"):
                yield part_path(folder, record.shard, piece.name, part)


def forget(folder: Path, name: str, record: ClipRecord, speaker: str) -> None:
    """Remove the files of a clip, the record first, and the identities that may have been fitted to its video."""
    record_path(folder, record.shard, name).unlink(missing_ok=True)
    for path in files_of(folder, record, BUILT + PREPARED):
        path.unlink(missing_ok=True)
    if record.has_face:
        for still in (False, True):
            identity_path(folder, speaker, still=still).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A clip, or a piece of a clip, that was left out.

    Attributes:
        file: path below the folder of the clips, or name of the piece.
    """

    file: str
    reason: str


@contextmanager
def open_output(output: Path) -> Iterator[Path]:
    """Create the folder of a training set, keep other processes out of it, and yield a folder for temporary files.

    Raises:
        InvalidRequestError: the folder cannot be written, or another process makes the set.
    """
    with locked_folder(output, f"{output}: another process makes this training set; wait for its end"):
        shutil.rmtree(output / _WORKING, ignore_errors=True)
        try:
            yield output / _WORKING
        finally:
            shutil.rmtree(output / _WORKING, ignore_errors=True)


def in_output(output: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to the folder of a training set.

    Raises:
        StorageFullError: no space is left in the folder.
    """
    return translating_full_disk(f"no space left in {output}: free some, and run the same command again", output)


class Shards:
    """The shards of a training set. A clip that has a shard keeps it; other clips fill up shards with room.

    Args:
        output: folder of the training set.
    """

    def __init__(self, output: Path) -> None:
        self._shard_of = recorded_shards(output)
        self._counts = Counter(self._shard_of.values())
        self._number = 0

    def of(self, name: str) -> str:
        """Return the shard of a clip."""
        if name not in self._shard_of:
            while self._counts[shard_name(self._number)] >= CLIPS_A_SHARD:
                self._number += CLIPS_A_SHARD
            self._shard_of[name] = shard_name(self._number)
            self._counts[self._shard_of[name]] += 1
        return self._shard_of[name]


def write_refused(output: Path, refusals: Iterable[Refusal]) -> None:
    """Write the list of what was left out."""
    _write_lines(output / REFUSED, ({"file": refusal.file, "reason": refusal.reason} for refusal in refusals))


def write_incomplete(output: Path, missing: Mapping[str, Mapping[str, str]]) -> None:
    """Write the list of what preparations could not make: reasons by clip, by name of the preparation."""
    lines = ({"clip": clip, "step": step, "reason": why} for step, reasons in missing.items() for clip, why in reasons.items())
    _write_lines(output / INCOMPLETE, lines)


def _write_lines(path: Path, lines: Iterable[Mapping[str, str]]) -> None:
    write_whole(path, (f"{json.dumps(line, ensure_ascii=False)}\n".encode(errors="backslashreplace") for line in lines))
