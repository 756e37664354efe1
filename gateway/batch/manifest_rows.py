"""Rows of a manifest: from JSON lines to shots."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from pydantic import ValidationError

from gateway.batch.manifest_checks import LOCATIONS, Mistake
from gateway.batch.media import local_path
from gateway.batch.types import Quality, Shot
from services.common.errors import InvalidRequest

MOST_ROWS: Final = 100_000
"""Most rows of a manifest."""
_OF_ONE_ROW: Final = ("id", "output")
"""Fields that differ in every row, so that they have no default."""
_STAND_IN: Final = {"id": "x", "footage": "x", "output": "x"}
"""Values of the fields that every row has, to check the defaults alone."""
_ID: Final = "takes at most 63 letters, digits, dots, hyphens and underscores, and begins and ends with a letter or a digit"


def shots_by_line(content: bytes, *, told_as: str) -> tuple[dict[int, Shot], list[Mistake]]:
    """Return the shots by line, with paths as they stand there, and the mistakes of the lines that are no shots.

    Args:
        content: bytes of a manifest.
        told_as: name of the manifest in messages.

    Raises:
        InvalidRequest: there are more than `MOST_ROWS` rows.
    """
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    rows = len(lines) - (bool(lines) and _gives_defaults(lines[0][1]))
    if rows > MOST_ROWS:
        raise InvalidRequest(
            f"{told_as}: {rows} rows, and a batch has at most {MOST_ROWS}: cut the manifest into several", field="manifest"
        )
    shots: dict[int, Shot] = {}
    mistakes: list[Mistake] = []
    defaults: dict[str, Any] = {}
    for place, (number, line) in enumerate(lines):
        try:
            row = _object(line)
        except ValueError as problem:
            mistakes.append(Mistake(number, "row", str(problem)))
            continue
        if place == 0 and "defaults" in row:
            defaults, wrong = _defaults(number, row)
            mistakes += wrong
            continue
        shot, wrong = shot_of(number, {**defaults, **row})
        mistakes += wrong
        if shot is not None:
            shots[number] = shot
    return shots, mistakes


def _gives_defaults(line: bytes) -> bool:
    """Return whether the first line of a manifest gives defaults, so that it is no row."""
    try:
        return "defaults" in _object(line)
    except ValueError:
        return False


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line. The message of a ValueError says what is wrong with the line."""
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ValueError("not a text in UTF-8") from None
    except json.JSONDecodeError as problem:
        raise ValueError(f"not JSON (character {problem.colno}: {problem.msg}); a row is one JSON object in one line") from None
    except RecursionError:
        raise ValueError("too many brackets; a row is one JSON object with the fields of a shot") from None
    if not isinstance(row, dict):
        raise ValueError("a row is one JSON object with the fields of a shot")
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _defaults(number: int, row: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    given = row["defaults"]
    if len(row) > 1 or not isinstance(given, dict):
        return {}, [Mistake(number, "defaults", 'this line is {"defaults": {FIELD: VALUE, ...}} and has nothing else')]
    mistakes = [Mistake(number, f"defaults.{field}", "every row names its own") for field in _OF_ONE_ROW if field in given]
    defaults = {field: value for field, value in given.items() if field not in _OF_ONE_ROW}
    _, wrong = shot_of(number, {**_STAND_IN, **defaults})
    mistakes += [Mistake(number, f"defaults.{mistake.field}", mistake.text) for mistake in wrong]
    # A wrong default is told once, not again in every row.
    told = {mistake.field.partition(".")[0] for mistake in wrong}
    return {field: value for field, value in defaults.items() if field not in told}, mistakes


def shot_of(number: int, row: dict[str, Any]) -> tuple[Shot | None, list[Mistake]]:
    """Return the shot of the fields of one row, or None and what is wrong with the fields.

    Args:
        number: line of the row, for the mistakes.
        row: fields of `Shot`.
    """
    try:
        return Shot.model_validate(row, strict=True), []
    except ValidationError as problem:
        return None, [Mistake(number, *_told(error)) for error in problem.errors(include_url=False)]


def _told(error: Any) -> tuple[str, str]:
    """Return field and text of an error of pydantic."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return field, "is missing: every row has one"
    if error["type"] == "extra_forbidden":
        known = ", ".join(Quality.model_fields if "." in field else Shot.model_fields)
        return field[:80], f"is no field of a row; there are: {known}"
    said = _ID if error["type"] == "string_pattern_mismatch" else error["msg"].replace("Input should be", "takes")
    return field, f"{said}, not {json.dumps(error['input'])[:80]}"


def with_absolute_paths(shot: Shot, folder: str) -> Shot:
    """Return a shot whose relative paths begin at a folder."""
    places = {field: place for field in LOCATIONS if (place := getattr(shot, field)) is not None}
    return shot.model_copy(update={field: _absolute(place, folder) for field, place in places.items()})


def _absolute(place: str, folder: str) -> str:
    local = local_path(place)
    return place if local is None else os.path.normpath(os.path.join(folder, local))
