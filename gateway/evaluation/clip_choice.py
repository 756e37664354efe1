"""The clips of an evaluation: films by name, and the films of a catalogue by their use."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from gateway.evaluation.clip_sound import check_clip
from services.common.errors import InvalidRequest, MediaUnsupported

CATALOGUE: Final = "catalogue.csv"


def chosen_clips(paths: Sequence[Path], splits: Collection[str]) -> list[Path]:
    """Return the clips that paths name, in their order; without splits, the paths themselves.

    Args:
        paths: films, and folders with a catalogue.csv (columns `file` and `use`).
        splits: uses of the catalogue. A folder stands for its films with one of these uses that have sound.

    Raises:
        InvalidRequest: a folder has no readable catalogue, or a split has no film.
    """
    if not splits:
        return list(paths)
    clips: list[Path] = []
    for path in paths:
        clips.extend(_of_catalogue(path, splits) if path.is_dir() else [path])
    return clips


def _of_catalogue(folder: Path, splits: Collection[str]) -> list[Path]:
    try:
        with (folder / CATALOGUE).open(newline="", encoding="utf-8-sig") as stream:
            rows = [(row["file"], row["use"]) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as problem:
        raise InvalidRequest(
            f"{folder}: --splits needs a table {CATALOGUE} with the columns file and use: {problem}", field="splits"
        ) from problem
    found = [(folder / file, use) for file, use in rows if use in splits and _is_talk(folder / file)]
    missing = [split for split in splits if split not in {use for _, use in found}]
    if missing:
        raise InvalidRequest(f"{folder / CATALOGUE} has no film with sound of use {', '.join(missing)}", field="splits")
    return [path for path, _ in found]


def _is_talk(path: Path) -> bool:
    """Return whether a file is a film with sound.

    Raises:
        InvalidRequest: the file is missing.
    """
    if not path.is_file():
        raise InvalidRequest(f"{path} is in the catalogue, but there is no such file", field="splits")
    try:
        return check_clip(path).video.num_frames > 1
    except (InvalidRequest, MediaUnsupported):
        return False
