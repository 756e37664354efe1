"""Choice of the clips of a training set: from a catalogue.csv, from a corpus file, or all films and recordings of a folder."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.trainset.corpus import Corpus, Source
from services.common.errors import InvalidRequest

CATALOGUE: Final = "catalogue.csv"
TRAIN, VALIDATION = "train", "val"
BY_SPEAKER: Final = ""
"""Split of clips for which nothing states a split."""
_WITHOUT_PIXELS: Final = "train_motion"
"""Use of clips that teach sound and landmarks, but not pixels."""
FILMS: Final = frozenset({".mp4", ".mov", ".mkv", ".mpg", ".mpeg", ".mxf", ".avi", ".webm", ".m4v", ".ts"})
RECORDINGS: Final = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"})
_COLUMNS: Final = frozenset({"file", "use", "speaker", "licence", "transcript"})
_MAX_NAME_BYTES: Final = 180
"""Longest name of a clip in a training set. A file system takes 255 bytes, and endings are added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEntry:
    """One clip of the folder.

    Attributes:
        file: path below the folder, with forward slashes.
        source: name of the corpus.
        speaker: name of the person in the clip; clips of one person have one name.
        split: `train`, `val` or another split; BY_SPEAKER: nothing states a split.
        licence: licence of the clip; empty: unknown.
        transcript: spoken words that the catalogue states; empty: none.
        has_pixels: whether networks may learn from the pixels.
        weight: how often the clip is drawn, relative to other clips.
        narrow: whether the corpus has one kind of sentence.
        language: language that is spoken (BCP 47); empty: unknown.
        rules: table of the corpus file; None: no table takes the clip.
    """

    file: str
    source: str
    speaker: str
    split: str = BY_SPEAKER
    licence: str = ""
    transcript: str = ""
    has_pixels: bool = True
    weight: float = 1.0
    narrow: bool = False
    language: str = ""
    rules: Source | None = None

    @property
    def is_film(self) -> bool:
        """Whether the file's ending is that of a film."""
        return PurePosixPath(self.file).suffix.lower() in FILMS

    @property
    def name(self) -> str:
        """The clip's name in the training set. Different paths have different names."""
        name = self.file.replace("/", "__")
        if name.replace("__", "/") == self.file and len(name.encode()) <= _MAX_NAME_BYTES:
            return name
        digest = hashlib.sha256(self.file.encode()).hexdigest()[:16]
        return f"{name.encode()[: _MAX_NAME_BYTES - 20].decode(errors='ignore')}.{digest}"


@dataclass(slots=True)
class Listing:
    """The clips of a folder.

    Attributes:
        entries: clips, ordered by file.
        refused: by file, why a clip cannot be taken.
    """

    entries: list[ClipEntry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def list_clips(folder: Path, splits: frozenset[str], corpus: Corpus | None = None) -> Listing:
    """Return the clips of a folder, ordered by file.

    With a catalogue.csv (columns file, use, speaker, licence, transcript, and language if it is known; others are ignored): its
    rows that name a film or a recording. The use `train_motion` is the split `train` without pixels. A corpus file adds what the
    catalogue leaves open. A row without a speaker that no corpus table takes is a person of its own, whatever its folder.
    Without a catalogue: the files that a corpus file takes; without a corpus file, every film and recording below the folder. The
    speaker is then what the corpus table says, otherwise the first sub-folder, or the file itself if there is no sub-folder.

    Args:
        folder: folder of the clips.
        splits: splits to take. Clips for which nothing states a split are always taken.
        corpus: description of the folder.

    Raises:
        InvalidRequest: there is no such folder, the catalogue lacks a column, or there is no clip.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"{folder}: no such folder; check the path", field="folder")
    catalogue = folder / CATALOGUE
    listing = Listing()
    if catalogue.is_file():
        _take_rows(listing, folder, catalogue, splits, corpus)
    else:
        _take_files(listing, folder, splits, corpus)
    listing.entries.sort(key=lambda entry: entry.file)
    if not listing.entries:
        first = next((f"; {file}: {why}" for file, why in listing.refused.items()), "")
        raise InvalidRequest(f"{folder}: no film or recording of the splits {', '.join(sorted(splits))}{first}", field="folder")
    return listing


def _take_rows(listing: Listing, folder: Path, catalogue: Path, splits: frozenset[str], corpus: Corpus | None) -> None:
    known: set[str] = set()
    for row in _catalogue_rows(catalogue):
        file, use = row["file"], row["use"]
        rules = corpus.source_of(file) if corpus is not None else None
        split = TRAIN if use == _WITHOUT_PIXELS else use or (rules.split_of(file) if rules else BY_SPEAKER)
        if split not in splits and split != BY_SPEAKER:
            continue
        why = _problem(folder, file) or ("the catalogue lists the file twice" if file in known else "")
        known.add(file)
        if why:
            listing.refused[file] = why
            continue
        try:
            speaker = row["speaker"] or (_speaker(file, rules) if rules else file.removesuffix(PurePosixPath(file).suffix))
        except InvalidRequest as problem:
            listing.refused[file] = problem.message
            continue
        listing.entries.append(
            ClipEntry(
                file=file,
                source=rules.name if rules else folder.resolve().name,
                speaker=speaker,
                split=split,
                licence=row["licence"] or (rules.licence if rules else ""),
                transcript=" ".join(row["transcript"].split()),
                has_pixels=use != _WITHOUT_PIXELS and (rules is None or rules.has_pixels),
                weight=rules.weight if rules else 1.0,
                narrow=rules is not None and rules.narrow,
                language=row.get("language") or (rules.language if rules else ""),
                rules=rules,
            )
        )


def _catalogue_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = _COLUMNS - set(reader.fieldnames or ())
            if missing:
                raise InvalidRequest(f"{path} lacks the columns {', '.join(sorted(missing))}", field="folder")
            # One file has one path: a/b.mkv, also where the catalogue says ./a/b.mkv or a//b.mkv.
            rows = ({**row, "file": PurePosixPath(row["file"]).as_posix()} for row in reader)
            return [row for row in rows if PurePosixPath(row["file"]).suffix.lower() in FILMS | RECORDINGS]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InvalidRequest(f"{path}: not a table of comma-separated values in UTF-8: {problem}", field="folder") from problem


def _take_files(listing: Listing, folder: Path, splits: frozenset[str], corpus: Corpus | None) -> None:
    for file in _media_below(folder):
        rules = corpus.source_of(file) if corpus is not None else None
        split = rules.split_of(file) if rules else BY_SPEAKER
        if (corpus is not None and rules is None) or (split not in splits and split != BY_SPEAKER):
            continue
        try:
            speaker = _speaker(file, rules)
            file.encode()
        except InvalidRequest as problem:
            listing.refused[file] = problem.message
            continue
        except UnicodeEncodeError:
            listing.refused[file] = "the name is not text in UTF-8; rename the file"
            continue
        listing.entries.append(
            ClipEntry(
                file=file,
                source=rules.name if rules else folder.resolve().name,
                speaker=speaker,
                split=split,
                licence=rules.licence if rules else "",
                has_pixels=rules is None or rules.has_pixels,
                weight=rules.weight if rules else 1.0,
                narrow=rules is not None and rules.narrow,
                language=rules.language if rules else "",
                rules=rules,
            )
        )


def _speaker(file: str, rules: Source | None) -> str:
    """Return the speaker that a corpus table states, otherwise the first folder, or the file itself if there is no folder.

    Raises:
        InvalidRequest: the table's expression does not match.
    """
    path = PurePosixPath(file)
    return (rules and rules.speaker_of(file)) or (path.parts[0] if len(path.parts) > 1 else path.stem)


def _media_below(folder: Path) -> Iterable[str]:
    """Yield films and recordings, without hidden files and folders."""
    # rglob would end at the first folder that may not be read.
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(above) / name
            if not name.startswith(".") and path.suffix.lower() in FILMS | RECORDINGS and path.is_file():
                yield path.relative_to(folder).as_posix()


def _problem(folder: Path, file: str) -> str:
    """Return why a catalogue's path cannot be used; an empty text where the path can be used."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        return "the catalogue names a file outside of the folder"
    return "" if (folder / file).is_file() else "no such file"
