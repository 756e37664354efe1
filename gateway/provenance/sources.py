"""Files that a film was made of, opened for its manifest: their digests, and their own manifests."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gateway.media.regular_file import reading
from gateway.provenance.claim import Source, ingredient
from gateway.provenance.facts import Role
from gateway.provenance.library import Ingredient
from gateway.provenance.media_digest import manifest_boxes
from gateway.provenance.places import media_type_of, read_sidecar, sidecar_of


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source.

    Attributes:
        role: what the file was to the film.
        sha256: digest of the file, hexadecimal.
        ingredient: the file with its own manifest, as c2pa takes it.
    """

    role: Role
    sha256: str
    ingredient: Ingredient


def opened(source: Source, stack: ExitStack) -> OpenedSource:
    """Return a source that stays open until the stack closes.

    Raises:
        MediaUnsupported: the file cannot be read.
    """
    handle = stack.enter_context(reading(source.path, field=source.role))
    file = stack.enter_context(open(handle, "rb", closefd=False))  # noqa: SIM115 - the stack closes the file
    digest = source.sha256 or hashlib.file_digest(file, "sha256").hexdigest()
    sidecar = read_sidecar(sidecar_of(source.path))
    return OpenedSource(source.role, digest, Ingredient(ingredient(source, media_type_of(source.path)), file, sidecar))


def manifest_bytes_of(path: Path) -> int:
    """Return the size of the manifest that a file has, inside (MP4 and MOV) or beside it, bytes; 0: none was found.

    Raises:
        MediaUnsupported: the file cannot be read.
    """
    with reading(path, field="footage") as handle, open(handle, "rb", closefd=False) as file:
        inside = sum(box.end - box.start for box in manifest_boxes(file))
    return inside + len(read_sidecar(sidecar_of(path)))
