"""The manifest of a training set: one JSON line a clip."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.common.errors import InvalidRequest
from services.training.trainset.layout import MANIFEST


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRow:
    """One clip.

    Attributes:
        name: name of the clip's files.
        shard: name of the clip's shard.
        file: path of the footage or recording below the folder that the set was made from, with forward slashes.
        sha256: SHA-256 of that file, hexadecimal.
        source: name of the corpus.
        speaker: name of the person. Clips of one person have one name.
        split: `train`, `val` (held out: the best step is selected on it), or another split that is only read where it is named.
        licence: licence of the clip; empty: unknown.
        transcript: spoken words; empty: unknown.
        has_face: whether the clip has a track.
        has_pixels: whether a network may learn from the clip's pixels. Sound and landmarks may always be learned from.
        frames: number of frames at 25 frames/s.
        usable_frames: number of frames that show the mouth well; 0 without a face.
        face_px: median width of the face, pixels of the footage; 0 without a face.
        seconds: length of the clip.
        speaker_hours: length of all clips of this person in the set.
        lag_frames: lag of the sound to take out, frames: the sound of frame n + lag belongs to the picture of frame n.
        lag_confidence: EstimateLagResponse.confidence of this clip alone; -1: not measured.
        phones: origin of the phone labels: `aligned`, `recognised`, `allphone`, `network`; empty: no labels.
        weight: how often the clip is drawn, relative to other clips of its speaker's size.
        narrow: whether the clip's corpus has one kind of sentence, see gateway.trainset.catalogue.Source.
        language: language that is spoken (BCP 47); empty: unknown.
        first_frame: frame of the footage or recording at 25 frames/s at which the clip begins. Not 0 if a long file was cut.
    """

    name: str
    shard: str
    file: str
    sha256: str
    source: str
    speaker: str
    split: str
    licence: str = ""
    transcript: str = ""
    has_face: bool = False
    has_pixels: bool = True
    frames: int = 0
    usable_frames: int = 0
    face_px: float = 0.0
    seconds: float = 0.0
    speaker_hours: float = 0.0
    lag_frames: int = 0
    lag_confidence: float = -1.0
    phones: str = ""
    weight: float = 1.0
    narrow: bool = False
    first_frame: int = 0
    language: str = ""


_ROW: TypeAdapter[ClipRow] = TypeAdapter(ClipRow)


def manifest_line(row: ClipRow) -> str:
    """Return the line of a row, with its newline."""
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def write_manifest(folder: Path, rows: Iterable[ClipRow]) -> None:
    """Write the manifest of a training set. A reader sees the manifest before or the whole new one."""
    partial = folder / f".{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as stream:
        stream.writelines(map(manifest_line, rows))
    os.replace(partial, folder / MANIFEST)


def read_manifest(folder: Path) -> Iterator[ClipRow]:
    """Yield the rows of a training set's manifest in their order.

    Args:
        folder: folder of the training set.

    Raises:
        InvalidRequest: the folder holds no manifest, or a line is wrong. The message names file, line and field.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InvalidRequest(
            f"{folder} is not a training set: it has no {MANIFEST}; make one with `dubstage trainset CLIPS --output {folder}`",
            field="data",
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _ROW.validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"]) or "the line"
                raise InvalidRequest(f"{path}, line {number}: {place}: {first['msg']}", field="data") from error


def speaker_hours(rows: Iterable[ClipRow]) -> dict[str, float]:
    """Return the hours of each speaker, rounded to 0.0001."""
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.speaker] = seconds.get(row.speaker, 0.0) + row.seconds
    return {speaker: round(total / 3600, 4) for speaker, total in seconds.items()}
