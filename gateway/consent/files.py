"""Consent records in files."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gateway.consent.record import Consent, ConsentFace, ConsentSignature
from gateway.safe_paths import bounded_bytes
from services.common.errors import InvalidRequestError, StorageRefusedError
from services.common.texts import Option, Text

MAX_BYTES: Final = 64 << 10
"""Largest consent file that is read, bytes."""
NEEDED: Final = tuple(name for name, field in Consent.model_fields.items() if field.is_required())
"""Fields that every record has."""
_OPTIONAL: Final = tuple(name for name in Consent.model_fields if name not in NEEDED)
_FIELDS: Final = f"{', '.join(NEEDED[:-1])} and {NEEDED[-1]}"


def read_consent(path: Path, shown_name: str = "") -> Consent:
    """Read a consent record from a JSON file with the fields of `Consent`.

    Args:
        shown_name: name of the file in messages; empty: its path.

    Raises:
        InvalidRequestError: there is no such file, the file is not regular, larger than `MAX_BYTES` or not JSON, a field is missing
            or wrong, or a field stands twice. The message names file and field.
    """
    name = shown_name or str(path)
    try:
        record = json.loads(bounded_bytes(path, MAX_BYTES).decode("utf-8-sig"), object_pairs_hook=_each_once)
    except OSError as problem:
        raise InvalidRequestError(
            f"{name}: cannot be read: {problem.strerror}; give the JSON file with the consent record", field="consent"
        ) from problem
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"{name}: not a text file in UTF-8", field="consent") from problem
    except json.JSONDecodeError as problem:
        raise InvalidRequestError(
            f"{name}: not JSON (line {problem.lineno}: {problem.msg}); a consent record is a JSON object with {_FIELDS}",
            field="consent",
        ) from problem
    except _FieldTwiceError as problem:
        raise InvalidRequestError(
            f"{name}: {problem.name[:80]!r} stands twice: write every field once", field=f"consent.{problem.name[:80]}"
        ) from None
    except (RecursionError, ValueError) as problem:  # thousands of brackets, or a number of thousands of digits
        raise InvalidRequestError(
            f"{name}: not a consent record, which is a JSON object with {_FIELDS}", field="consent"
        ) from problem
    if not isinstance(record, dict):
        raise InvalidRequestError(
            f"{name}: a consent record is a JSON object with {_FIELDS}; this file holds {_kind(record)}", field="consent"
        )
    try:
        return Consent.model_validate(record)
    except ValidationError as problem:
        field, said = field_and_reason(problem)
        raise InvalidRequestError(f"{name}: {field}: {said}", field=f"consent.{field}") from problem


def write_new_consent(file: Path, consent: Consent) -> None:
    """Write a record to a new file, whole. Only its owner can read the file (mode 0600), because the record names a person.

    Raises:
        InvalidRequestError: there is a file of this name.
        StorageRefusedError: the file cannot be written.
    """
    partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as text:
            text.write(f"{json.dumps(consent.fields(), indent=2, ensure_ascii=False)}\n")
        os.link(partial, file)
    except FileExistsError:
        raise InvalidRequestError(
            Text("{output} {file} exists: give the name of a new file", output=Option("output_uri"), file=file), field="output"
        ) from None
    except (OSError, ValueError) as problem:
        said = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise StorageRefusedError(f"{file} cannot be written: {said}", subject=str(file)) from problem
    finally:
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


def field_and_reason(problem: ValidationError) -> tuple[str, str]:
    """Return the field and the text of the first mistake of a record."""
    first = problem.errors()[0]
    name = ".".join(str(part) for part in first["loc"])[:80]
    what, needed, allowed = "a consent record", _FIELDS, f"{_FIELDS}, and may have {', '.join(_OPTIONAL)}"
    for part, fields in (("signature", ConsentSignature.model_fields), ("face", ConsentFace.model_fields)):
        if name.startswith(f"{part}."):
            what, needed = f"a {part}", ", ".join(fields)
            allowed = needed
    said = {
        "missing": f"is missing; {what} has {needed}",
        "extra_forbidden": f"is not a field of {what}, which has {allowed}",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    return name or "record", said


class _FieldTwiceError(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, and refuse two fields with the same name: programs differ in which of the two they read."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise _FieldTwiceError(name)
        fields[name] = value
    return fields


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "something else")
