"""The place of a film's manifest: inside of MP4 and MOV, and in a sidecar beside every other file."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from gateway.media.output import existing_file
from gateway.provenance.library import UNKNOWN
from gateway.safe_paths import open_regular
from services.common.errors import InvalidRequest

SIDECAR: Final = ".c2pa"
"""Ending that the name of a sidecar has more than the name of the film."""
_MAGIC: Final = b"jumb"
"""Bytes 4 to 8 of every sidecar."""
LARGEST_SIDECAR: Final = 64 << 20
"""Largest sidecar that is read, bytes."""
_EMBEDDED: Final = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
_ALSO_READ: Final = {".m4a": "audio/mp4", ".wav": "audio/wav", ".webp": "image/webp", ".flac": "audio/flac"}


def embedded_type(film: Path) -> str | None:
    """Return the media type of a film that has its manifest inside; None: the manifest lies beside the film."""
    return _EMBEDDED.get(film.suffix.lower())


def media_type_of(file: Path) -> str:
    """Return the media type that a file's name says."""
    suffix = file.suffix.lower()
    return _EMBEDDED.get(suffix) or _ALSO_READ.get(suffix) or mimetypes.guess_type(file.name)[0] or UNKNOWN


def sidecar_of(film: Path) -> Path:
    """Return where the manifest of a film lies if it lies beside the film."""
    return film.parent / f"{film.name}{SIDECAR}"


def read_sidecar(file: Path) -> bytes:
    """Return the manifest in a sidecar; empty: there is no such file, or the file is no manifest or larger than LARGEST_SIDECAR."""
    try:
        handle = open_regular(file)
    except (OSError, ValueError):
        return b""
    if handle is None:
        return b""
    with open(handle, "rb") as sidecar:
        content = sidecar.read(LARGEST_SIDECAR + 1)
    return content if content[4:8] == _MAGIC and len(content) <= LARGEST_SIDECAR else b""


def check_sidecar(film: Path, *, overwrite: bool) -> None:
    """Check before any work that the manifest of a film can be written.

    Args:
        overwrite: whether a file that is no manifest may be replaced.

    Raises:
        InvalidRequest: the manifest belongs beside the film, and its name is too long, or a file that is no manifest has it.
    """
    if embedded_type(film) is not None:
        return
    sidecar = sidecar_of(film)
    there = existing_file(sidecar)
    if there is not None and not overwrite and not read_sidecar(sidecar):
        raise InvalidRequest(
            f"{sidecar} exists and is no manifest, and the manifest of {film.name} is written there; give the film another "
            "name, or replace both files with --overwrite",
            field="output",
        )
