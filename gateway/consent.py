"""Consent records: who agreed to be dubbed."""

from __future__ import annotations

import datetime
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.common.errors import ConsentMissing, InvalidRequest

NO_CONSENT: Final = "no consent on record"
"""Line for a film without a consent record."""
MAX_BYTES: Final = 64 << 10
"""Largest consent file that is read, bytes."""
EARLIEST: Final = datetime.date(1900, 1, 1)
"""Earliest date of a consent record."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, marks of writing direction, halves of characters and line breaks."""
_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners: names in Persian and Indic scripts are written with them."""


def _plain(text: str) -> str:
    """Return a text without characters that a terminal, a page or a film's comment would act on instead of showing them."""
    for place, character in enumerate(text):
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
            raise ValueError(f"character {place + 1} is {character!a}: write one line without control characters")
    return text


def _iso_date(value: Any) -> datetime.date:
    """Return the date of a text. A number is refused, because pydantic would read seconds since 1970."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.datetime.strptime(value, "%Y-%m-%d").date()
    except (TypeError, ValueError):
        shown = ascii(value)
        raise ValueError(f"expected a day of the calendar as YYYY-MM-DD, such as 2026-05-01, not {shown[:40]}") from None


def _in_the_past(day: datetime.date) -> datetime.date:
    # In time zones east of UTC, today may be tomorrow's date in UTC.
    latest = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    if day > latest:
        raise ValueError(f"{day.isoformat()} is in the future: give the day on which the consent was granted")
    if day < EARLIEST:
        raise ValueError(f"{day.isoformat()} is before {EARLIEST.isoformat()}: give the day on which the consent was granted")
    return day


_Plain = AfterValidator(_plain)


class Consent(BaseModel):
    """Who agreed to what, when, and where the original is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    subject: Annotated[str, _Plain] = Field(min_length=1, max_length=200)
    granted_by: Annotated[str, _Plain] = Field(min_length=1, max_length=200)
    scope: Annotated[str, _Plain] = Field(min_length=1, max_length=2000)
    date: Annotated[datetime.date, BeforeValidator(_iso_date), AfterValidator(_in_the_past)]
    reference: Annotated[str, _Plain] = Field(min_length=1, max_length=500)


def read_consent(path: Path) -> Consent:
    """Read a consent record from a JSON file with the five fields of `Consent`.

    Raises:
        InvalidRequest: there is no such file, the file is not regular, larger than `MAX_BYTES` or not JSON, or a field is missing
            or wrong. The message names file and field.
    """
    *names, last = Consent.model_fields
    fields = f"{', '.join(names)} and {last}"
    try:
        record = json.loads(_content(path).decode("utf-8-sig"))
    except OSError as problem:
        raise InvalidRequest(f"{path}: cannot be read: {problem.strerror}", field="consent") from problem
    except UnicodeDecodeError as problem:
        raise InvalidRequest(f"{path}: not a text file in UTF-8", field="consent") from problem
    except json.JSONDecodeError as problem:
        raise InvalidRequest(
            f"{path}: not JSON (line {problem.lineno}: {problem.msg}); a consent record is a JSON object with {fields}",
            field="consent",
        ) from problem
    except (RecursionError, ValueError) as problem:  # thousands of brackets, or a number of thousands of digits
        raise InvalidRequest(f"{path}: not a consent record, which is a JSON object with {fields}", field="consent") from problem
    if not isinstance(record, dict):
        raise InvalidRequest(
            f"{path}: a consent record is a JSON object with {fields}; this file holds {_kind(record)}", field="consent"
        )
    try:
        return Consent.model_validate(record)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        said = {
            "missing": f"is missing; a consent record has {fields}",
            "extra_forbidden": f"is not a field of a consent record, which has {fields}",
        }.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise InvalidRequest(f"{path}: {name[:80]}: {said}", field=f"consent.{name[:80]}") from problem


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file. A pipe, which may never end, is refused without a wait for its writer."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidRequest(f"{path}: not a regular file; give the JSON file with the consent record", field="consent")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidRequest(
            f"{path}: larger than {MAX_BYTES >> 10} KiB, the most that is read: give the JSON file with the consent record",
            field="consent",
        )
    return content


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


def reference_refusal(subject: str) -> ConsentMissing:
    """Return the error for a reference picture without a consent record, in an installation that requires one.

    Args:
        subject: name of the reference picture.
    """
    return ConsentMissing(
        "this installation requires a consent record of the person in the reference picture too: give one as reference_consent "
        "(--reference-consent FILE). If the reference shows the person who is dubbed, give that person's record again",
        subject=subject,
    )


def consent_line(consent: Consent | None) -> str:
    """Return one line about the consent, for terminals, reports and the film's metadata."""
    if consent is None:
        return NO_CONSENT
    return (
        f"consent of {consent.subject}, granted by {consent.granted_by} on {consent.date.isoformat()} "
        f"for {consent.scope} ({consent.reference})"
    )
