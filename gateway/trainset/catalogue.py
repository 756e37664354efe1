"""Choice of the clips of a training set, their speakers, and the speakers held out for validation."""

from __future__ import annotations

import csv
import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.errors import InvalidRequest

CATALOGUE: Final = "catalogue.csv"
TRAIN, VALIDATION = "train", "val"
_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv", ".mpg", ".mpeg", ".mxf", ".avi", ".webm", ".m4v", ".ts"})
_HELD_OUT_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """One clip of the folder.

    Attributes:
        file: path below the folder, with forward slashes.
        use: `train`, `val`, or another use that the catalogue names.
        speaker: name of the person in the clip; clips of one person have one name.
        licence: licence of the clip; empty: unknown.
        transcript: spoken words; empty: unknown.
    """

    file: str
    use: str
    speaker: str
    licence: str
    transcript: str

    @property
    def name(self) -> str:
        """The clip's name in the training set."""
        return self.file.replace("/", "__")


def list_clips(folder: Path, uses: frozenset[str]) -> list[ClipEntry]:
    """Return the clips of a folder, ordered by name.

    With a catalogue.csv (columns file, use, speaker, licence, transcript; others are ignored): its rows of the wanted
    uses that name a film. Without a catalogue: every film below the folder. The speaker is the film's sub-folder, or the file
    itself if there is no sub-folder. `held_out` decides the use.

    Raises:
        InvalidRequest: there is no such folder, the catalogue lacks a column, or there is no clip.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder}: no such folder; check the path", field="folder")
    catalogue = folder / CATALOGUE
    entries = _from_catalogue(catalogue) if catalogue.is_file() else _from_files(folder)
    clips = sorted((entry for entry in entries if entry.use in uses and (folder / entry.file).is_file()), key=lambda e: e.file)
    if not clips:
        raise InvalidRequest(f"{folder}: no film of use {', '.join(sorted(uses))}", field="folder")
    return clips


def held_out(speakers: set[str]) -> set[str]:
    """Return the speakers held out for validation: about one in seven, none of fewer than three. Equal names give equal results."""
    if len(speakers) < 3:
        return set()
    ranked = sorted(speakers, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: math.ceil(_HELD_OUT_SHARE * len(ranked))])


def _from_catalogue(path: Path) -> list[ClipEntry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = {"file", "use", "speaker", "licence", "transcript"} - set(reader.fieldnames or ())
            if missing:
                raise InvalidRequest(f"{path}: no column {', '.join(sorted(missing))}", field="folder")
            rows = [row for row in reader if Path(row["file"]).suffix.lower() in _SUFFIXES]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InvalidRequest(f"{path}: not a table of comma-separated values in UTF-8: {problem}", field="folder") from problem
    return [
        ClipEntry(row["file"], row["use"], row["speaker"] or Path(row["file"]).stem, row["licence"], row["transcript"])
        for row in rows
    ]


def _from_files(folder: Path) -> list[ClipEntry]:
    # rglob would end at the first folder that may not be read.
    found = sorted(Path(above) / name for above, _, names in os.walk(folder) for name in names)
    files = [path.relative_to(folder) for path in found if path.suffix.lower() in _SUFFIXES]
    speakers = {path: path.parts[0] if len(path.parts) > 1 else path.stem for path in files}
    kept = held_out(set(speakers.values()))
    return [
        ClipEntry(path.as_posix(), VALIDATION if speaker in kept else TRAIN, speaker, "", "") for path, speaker in speakers.items()
    ]
