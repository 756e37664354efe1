"""Names of the files of image sequences: the pattern of the frames, the sound beside the frames, and the list of the files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".exr", ".dpx", ".tif", ".tiff", ".png")
"""Endings of the files of a sequence."""
NUMBER: Final = re.compile(r"%0?(\d*)d|#+|@+")
"""Position of the frame number in a pattern."""
LISTING_SUFFIX: Final = ".sha256"
"""Ending of the list of the files of a dubbed sequence."""


def is_sequence(path: Path) -> bool:
    """Return whether a path is the pattern of an image sequence, such as `shot.%04d.exr`. A file of this very name is a file."""
    return path.suffix.lower() in SUFFIXES and NUMBER.search(path.name) is not None and not os.path.exists(path)


def listing_file(pattern: Path) -> Path:
    """Return the list of the files of a dubbed sequence: the pattern without its frame number, with the ending .sha256."""
    return sound_file(pattern).with_suffix(LISTING_SUFFIX)


def sound_file(pattern: Path) -> Path:
    """Return the pattern without its frame number, with the ending .wav."""
    stem = re.sub(r"\d+-\d+$", "", pattern.name[: next(NUMBER.finditer(pattern.name)).start()]).rstrip("._- ")
    return pattern.with_name(f"{stem or 'sound'}.wav")
