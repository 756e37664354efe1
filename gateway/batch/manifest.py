"""Manifests: the shots of a batch as JSON lines. A manifest is checked whole, and every mistake is told by line and field.

    {"defaults": {"retime": true, "quality": {"min_dubbed_share": 0.9}}}
    {"id": "sc010_sh020", "footage": "plates/sc010_sh020.mov", "speech": "de/sc010_sh020.wav", "output": "out/sc010_sh020.mov"}

The first line may hold `defaults`: the values of all rows that do not name them. All other lines are rows with the fields
of `Shot`. Paths are relative to the folder of the manifest. Empty lines are skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from gateway.batch.manifest_checks import MethodOf, Mistake, file_mistakes, option_mistakes, repeat_mistakes
from gateway.batch.manifest_rows import shots_by_line, with_absolute_paths
from gateway.batch.types import BatchName, Shot
from services.common.errors import InvalidRequest

MOST_BYTES: Final = 256 << 20
"""Largest manifest, bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Checked manifest.

    Attributes:
        name: name of the batch.
        shots: the rows. Paths are absolute.
        content: canonical text of the rows, JSON lines in ASCII.
        sha256: digest of `content`, 64 hexadecimal digits. Manifests with equal digests ask for the same films.
    """

    name: str
    shots: tuple[Shot, ...]
    content: bytes
    sha256: str


def read_manifest(path: Path, *, name: str | None = None, method_of: MethodOf | None = None, check_files: bool = True) -> Manifest:
    """Read and check a manifest.

    Args:
        path, name, method_of, check_files: as `manifest_or_mistakes` takes them.

    Raises:
        InvalidRequest: rows have mistakes, and the message tells the first; or as `manifest_or_mistakes` raises.
        StorageRefused, BackendUnavailable: as `manifest_or_mistakes` raises.
    """
    found = manifest_or_mistakes(path, name=name, method_of=method_of, check_files=check_files)
    if isinstance(found, Manifest):
        return found
    more = "" if len(found) == 1 else f" ({path} has {len(found)} mistakes, this is the first)"
    raise InvalidRequest(f"{found[0]}{more}", field="manifest")


def manifest_or_mistakes(
    path: Path, *, name: str | None = None, method_of: MethodOf | None = None, check_files: bool = True
) -> Manifest | tuple[str, ...]:
    """Return a checked manifest, or all mistakes of its rows.

    Args:
        path: file of the manifest.
        name: name of the batch; None: made from the name of the file.
        method_of: returns the method that dubs a shot, and raises ActorNotReady, ConsentRefused or InvalidRequest if the actor of
            the shot is missing or cannot be dubbed so; None: actors are not looked up.
        check_files: whether the files of the rows are looked at. False suits the workers of a batch that was checked before.

    Returns:
        The manifest; or one line for each mistake, such as `SHOTS.jsonl:17: footage: no such file /plates/a.mov`, in the order of
        the rows.

    Raises:
        InvalidRequest: the file cannot be read, has no rows, has too many rows, or the name is not allowed.
        StorageRefused, BackendUnavailable: the store of a URL refuses, or does not answer.
    """
    named = batch_name(path.stem if name is None else name, given=name is not None)
    shots, mistakes = shots_by_line(_content(path), told_as=str(path))
    folder = os.path.dirname(os.path.abspath(path))
    shots = {line: with_absolute_paths(shot, folder) for line, shot in shots.items()}
    mistakes += row_mistakes(shots, method_of, check_files=check_files)
    if mistakes:
        return tuple(f"{path}:{mistake.line}: {mistake.field}: {mistake.text}" for mistake in in_order(mistakes))
    if not shots:
        raise InvalidRequest(f"{path}: the manifest has no rows: write one JSON object a line, one for each shot", field="manifest")
    return manifest_of(named, shots.values())


def row_mistakes(shots: Mapping[int, Shot], method_of: MethodOf | None, *, check_files: bool) -> list[Mistake]:
    """Return what is wrong with shots whose paths are absolute.

    Args:
        shots: the shots by line.
        method_of, check_files: as `manifest_or_mistakes` takes them.

    Raises:
        StorageRefused, BackendUnavailable: the store of a URL refuses, or does not answer.
    """
    mistakes = option_mistakes(shots, method_of) + repeat_mistakes(shots, follow_links=check_files)
    return mistakes + file_mistakes(shots) if check_files else mistakes


def in_order(mistakes: Iterable[Mistake]) -> Sequence[Mistake]:
    """Return mistakes in the order of the rows."""
    return sorted(mistakes, key=lambda mistake: mistake.line)


def manifest_of(name: str, shots: Iterable[Shot]) -> Manifest:
    """Return the manifest of checked shots."""
    shots = tuple(shots)
    # Without the defaults, so that a new option of a later version does not make every batch another one.
    rows = (shot.model_dump(mode="json", exclude_defaults=True) for shot in shots)
    content = "".join(f"{json.dumps(row, sort_keys=True, separators=(',', ':'))}\n" for row in rows).encode("ascii")
    return Manifest(name, shots, content, hashlib.sha256(content).hexdigest())


def shots_of(content: bytes) -> tuple[Shot, ...]:
    """Return the shots of a canonical text (`Manifest.content`).

    Raises:
        ValueError: the text is damaged.
    """
    return tuple(Shot.model_validate_json(line) for line in content.splitlines())


def batch_name(text: str, *, given: bool = True) -> str:
    """Return the name of a batch.

    Args:
        text: the name, or any text that a name is made from.
        given: whether the user gave the text as a name. Otherwise characters that a name lacks become hyphens.

    Raises:
        InvalidRequest: the user's name is not allowed, or no name can be made from the text.
    """
    wanted = text
    if not given:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        wanted = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    try:
        return TypeAdapter(BatchName).validate_python(wanted)
    except ValidationError:
        problem = f"{text[:80]!r} is no name of a batch" if given else f"no name can be made from {text[:80]!r}: give --name NAME"
        raise InvalidRequest(
            f"{problem}; a name has at most 40 small letters, digits and hyphens, and begins and ends with a letter or a digit",
            field="name",
        ) from None


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise InvalidRequest(f"{path}: cannot be read: {told}", field="manifest") from problem
    if len(content) > MOST_BYTES:
        raise InvalidRequest(f"{path}: larger than {MOST_BYTES >> 20} MiB: cut the manifest into several", field="manifest")
    return content.removeprefix(b"\xef\xbb\xbf")
