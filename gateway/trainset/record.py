"""What is noted of each finished clip: the file that it was made from, the networks that made it, and facts of its pieces.

A film or recording of more than a minute is cut into pieces. Each piece is a clip of the training set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from services.training.trainset.layout import FORMAT_VERSION, Part, identity_path, part_path

MADE_HERE: Final[tuple[Part, ...]] = ("track", "sound", "speech")
PREPARED: Final[tuple[Part, ...]] = ("phones", "expression")
_ENDING: Final = ".clip.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceFacts:
    """Facts of one piece.

    Attributes:
        name: name of the piece's files.
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
    path = record_path(folder, record.shard, name)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(asdict(record), ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def files_of(folder: Path, record: ClipRecord, parts: tuple[Part, ...]) -> Iterator[Path]:
    """Yield the paths of some parts of all pieces, whether they exist or not."""
    for piece in record.pieces:
        for part in parts:
            if record.has_face or part not in ("track", "expression"):
                yield part_path(folder, record.shard, piece.name, part)


def forget(folder: Path, name: str, record: ClipRecord, speaker: str) -> None:
    """Remove the files of a clip, the record first, and the identities that may have been fitted to its film."""
    record_path(folder, record.shard, name).unlink(missing_ok=True)
    for path in files_of(folder, record, MADE_HERE + PREPARED):
        path.unlink(missing_ok=True)
    if record.has_face:
        for still in (False, True):
            identity_path(folder, speaker, still=still).unlink(missing_ok=True)
