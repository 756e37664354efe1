"""Manifests: the shots of a batch as JSON lines. A manifest is checked whole, and every mistake is told by line and field.

    {"defaults": {"method": "ugc", "quality": {"min_dubbed_share": 0.9}}}
    {"id": "sc010_sh020", "footage": "plates/sc010_sh020.mov", "speech": "de/sc010_sh020.wav", "output": "out/sc010_sh020.mov"}

The first line may hold `defaults`: the values of all rows that do not name them. All other lines are rows with the fields of `Shot`.
Paths are relative to the folder of the manifest. Empty lines are skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway.batch.media import input_problem, is_url, local_path, output_problem
from gateway.batch.types import BatchName, Shot
from gateway.consent import read_consent
from gateway.media.encoders import check_target
from gateway.methods import DEFAULT_METHOD, method_named
from gateway.pipeline.dub_request import wants_own_timeline
from gateway.pipeline.faces import parse_face
from services.common.errors import DubstageError, InvalidRequest, RequestError

MOST_ROWS: Final = 100_000
"""Most rows of a manifest."""
MOST_BYTES: Final = 256 << 20
"""Largest manifest, bytes."""
_FIELDS: Final = tuple(Shot.model_fields)
_OF_ONE_ROW: Final = ("id", "output")
"""Fields that differ in every row, so that they have no default."""
_LOCATIONS: Final = ("footage", "speech", "consent", "output")
_THREADS: Final = 16
"""Files that are looked at once: on a network drive the time goes by in waiting."""
_ID: Final = (
    "takes at most 63 letters, digits, dots, hyphens and underscores, and begins and ends with a letter or a digit"
)

MethodOf = Callable[[Shot], str]
"""Returns the method that dubs a shot. Raises DubstageError if the actor is missing or cannot be dubbed so."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Checked manifest.

    Attributes:
        name: name of the batch.
        shots: the rows. Paths are absolute.
        content: canonical text of the rows, JSON lines in UTF-8.
        sha256: digest of `content`, 64 hexadecimal digits. Manifests with equal digests ask for the same films.
    """

    name: str
    shots: tuple[Shot, ...]
    content: bytes
    sha256: str


class WrongManifest(InvalidRequest):
    """A manifest with mistakes.

    Attributes:
        mistakes: one line for each mistake, such as `SHOTS.jsonl:17: footage: no such file /plates/a.mov`, in the order of the rows.
    """

    def __init__(self, path: Path, mistakes: Sequence[str]) -> None:
        told = mistakes[0] if len(mistakes) == 1 else f"{path}: {len(mistakes)} mistakes, the first is {mistakes[0]}"
        super().__init__(told, field="manifest")
        self.mistakes = tuple(mistakes)


def read_manifest(path: Path, *, name: str | None = None, method_of: MethodOf | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: file of the manifest.
        name: name of the batch; None: made from the name of the file.
        method_of: looks the actor of a shot up; None: actors are not checked.

    Raises:
        WrongManifest: rows have mistakes. The error holds all mistakes.
        InvalidRequest: the file cannot be read, has no rows, has too many rows, or the name is not allowed.
    """
    named = batch_name(path.stem if name is None else name, given=name is not None)
    rows = _Rows(path, method_of or _default_method)
    rows.read(_content(path))
    if rows.mistakes:
        raise WrongManifest(path, [f"{path}:{line}: {text}" for line, text in sorted(rows.mistakes)])
    if not rows.shots:
        raise InvalidRequest(f"{path}: the manifest has no rows: write one JSON object a line, one for each shot", field="manifest")
    return manifest_of(named, rows.shots.values())


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
        given: whether the user gave the text as a name. Otherwise letters that a name lacks become hyphens.

    Raises:
        InvalidRequest: the user's name is not allowed, or no name can be made from the text.
    """
    if not given:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        text = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    try:
        return TypeAdapter(BatchName).validate_python(text)
    except ValidationError:
        told = repr(text[:80]) if given else "a name made from the name of the file"
        raise InvalidRequest(
            f"--name takes at most 40 small letters, digits and hyphens, and begins and ends with a letter or a digit, not {told}",
            field="name",
        ) from None


def _default_method(shot: Shot) -> str:
    return shot.method or DEFAULT_METHOD


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else "no path of a file"
        raise InvalidRequest(f"{path}: cannot be read: {told}", field="manifest") from problem
    if len(content) > MOST_BYTES:
        raise InvalidRequest(f"{path}: larger than {MOST_BYTES >> 20} MiB: cut the manifest into several", field="manifest")
    return content.removeprefix(b"\xef\xbb\xbf")


class _Rows:
    """Rows of a manifest and their mistakes (line, text)."""

    def __init__(self, path: Path, method_of: MethodOf) -> None:
        self.shots: dict[int, Shot] = {}
        self.mistakes: list[tuple[int, str]] = []
        self._folder = os.path.dirname(os.path.abspath(path))
        self._path = path
        self._method_of = method_of
        self._defaults: dict[str, Any] = {}

    def read(self, content: bytes) -> None:
        lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
        if len(lines) > MOST_ROWS + 1:
            raise InvalidRequest(
                f"{self._path}: {len(lines)} rows, a batch has at most {MOST_ROWS}: cut the manifest into several", field="manifest"
            )
        for place, (number, line) in enumerate(lines):
            row = self._object(number, line)
            if row is None:
                continue
            if place == 0 and "defaults" in row:
                self._read_defaults(number, row)
            else:
                self._read_row(number, row)
        self._check_unique()
        self._check_files()

    def _object(self, number: int, line: bytes) -> dict[str, Any] | None:
        try:
            row = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
        except UnicodeDecodeError:
            self.mistakes.append((number, "row: not a text in UTF-8"))
        except json.JSONDecodeError as problem:
            self.mistakes.append((number, f"row: not JSON (character {problem.colno}: {problem.msg}); a row is one JSON object"))
        except RecursionError:
            self.mistakes.append((number, "row: too deep; a row is one JSON object with the fields of a shot"))
        except ValueError as problem:
            self.mistakes.append((number, f"row: {problem}"))
        else:
            if isinstance(row, dict):
                return row
            self.mistakes.append((number, "row: a row is one JSON object with the fields of a shot"))
        return None

    def _read_defaults(self, number: int, row: dict[str, Any]) -> None:
        given = row["defaults"]
        if len(row) > 1 or not isinstance(given, dict):
            self.mistakes.append((number, 'defaults: the line of the defaults is {"defaults": {FIELD: VALUE, ...}} and nothing else'))
            return
        for field in [field for field in _OF_ONE_ROW if field in given]:
            self.mistakes.append((number, f"defaults.{field}: has no default: every row names its own"))
        self._defaults = {field: value for field, value in given.items() if field not in _OF_ONE_ROW}
        stand_in = {field: "x" for field in ("id", "footage", "output")}
        _, problems = _shot({**stand_in, **self._defaults})
        for field, text in problems:
            self.mistakes.append((number, f"defaults.{field}: {text}"))
            self._defaults.pop(field.partition(".")[0], None)

    def _read_row(self, number: int, row: dict[str, Any]) -> None:
        shot, problems = _shot({**self._defaults, **row})
        if shot is not None:
            changed = {field: self._absolute(place) for field in _LOCATIONS if (place := getattr(shot, field)) is not None}
            shot = shot.model_copy(update=changed)
            self.shots[number] = shot
            problems = list(_contradictions(shot, self._method_of))
        self.mistakes += [(number, f"{field}: {text}") for field, text in problems]

    def _absolute(self, place: str) -> str:
        local = local_path(place)
        return place if local is None else os.path.normpath(os.path.join(self._folder, local))

    def _check_unique(self) -> None:
        ids: dict[str, tuple[int, str]] = {}
        outputs: dict[str, int] = {}
        inputs = {
            place: (number, field)
            for number, shot in self.shots.items()
            for field in ("footage", "speech", "consent")
            if (place := getattr(shot, field)) is not None
        }
        for number, shot in self.shots.items():
            # Files are named by the ids, and some file systems do not tell A from a.
            before, other = ids.setdefault(shot.id.lower(), (number, shot.id))
            if before != number:
                same = "is" if other == shot.id else f"differs only in case from {other},"
                self.mistakes.append((number, f"id: {shot.id} {same} the id of line {before} already"))
            before = outputs.setdefault(shot.output, number)
            if before != number:
                self.mistakes.append((number, f"output: {shot.output} is the output of line {before} already"))
            if shot.output in inputs:
                line, field = inputs[shot.output]
                self.mistakes.append((number, f"output: {shot.output} is the {field} of line {line}: choose another file"))

    def _check_files(self) -> None:
        wanted = [
            (number, field, place)
            for number, shot in self.shots.items()
            for field in _LOCATIONS
            if (place := getattr(shot, field)) is not None
        ]
        kinds = list(dict.fromkeys((_CHECKS.get(field, input_problem), place) for _, field, place in wanted))
        with ThreadPoolExecutor(_THREADS) as threads:
            told = dict(zip(kinds, threads.map(lambda kind: kind[0](kind[1]), kinds), strict=True))
        for number, field, place in wanted:
            if problem := told[_CHECKS.get(field, input_problem), place]:
                self.mistakes.append((number, f"{field}: {problem}"))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _shot(row: dict[str, Any]) -> tuple[Shot | None, list[tuple[str, str]]]:
    """Return the shot of a row, or the mistakes (field, text)."""
    try:
        return Shot.model_validate(row, strict=True), []
    except ValidationError as problem:
        return None, [_told(error) for error in problem.errors(include_url=False)]


def _told(error: Any) -> tuple[str, str]:
    field = ".".join(str(part) for part in error["loc"])[:80]
    if error["type"] == "missing":
        return field, "is missing: every row has one"
    if error["type"] == "extra_forbidden":
        known = ", ".join(_FIELDS if "." not in field else Shot.model_fields["quality"].annotation.model_fields)  # type: ignore[union-attr]
        return field, f"is no such field; there are: {known}"
    said = _ID if error["type"] == "string_pattern_mismatch" else error["msg"].replace("Input should", "should")
    return field, f"{said}, not {json.dumps(error['input'], default=str)[:80]}"


def _contradictions(shot: Shot, method_of: MethodOf) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a row by itself, without its files (field, text)."""
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("face", lambda: parse_face(shot.face)),
        ("output", lambda: check_target(Path(shot.output), shot.codec)),
        ("method", lambda: _check_timeline(shot, method_of)),
    )
    for field, check in checks:
        try:
            check()
        except DubstageError as error:
            named = error.field if isinstance(error, RequestError) and error.field in _FIELDS else field
            yield named, error.message


def _check_timeline(shot: Shot, method_of: MethodOf) -> None:
    method = method_named(shot.method) if shot.method is not None else None
    method = method_named(method_of(shot)) if method is None or shot.actor is not None else method
    wants_own_timeline(method, retime=shot.retime, keep_audio=shot.keep_audio, expression=shot.expression)


def _consent_problem(place: str) -> str:
    if is_url(place):
        return input_problem(place)
    try:
        read_consent(Path(place))
    except InvalidRequest as error:
        return error.message
    return ""


_CHECKS: Final[dict[str, Callable[[str], str]]] = {"consent": _consent_problem, "output": output_problem}
