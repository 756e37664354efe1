"""Consent records: that a person agreed to be dubbed."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.errors import InvalidRequest

NO_CONSENT = "no consent on record"


class Consent(BaseModel):
    """Who agreed to what, when, and where the original is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    subject: str = Field(min_length=1, max_length=200)
    granted_by: str = Field(min_length=1, max_length=200)
    scope: str = Field(min_length=1, max_length=2000)
    date: datetime.date
    reference: str = Field(min_length=1, max_length=500)


def read_consent(path: Path) -> Consent:
    """A consent record from a JSON file with the five fields of `Consent`.

    Raises:
        InvalidRequest: no such file, not JSON, or a field is missing or wrong; the message names it.
    """
    try:
        return Consent.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise InvalidRequest(f"{path}: cannot be read: {problem.strerror}", field="consent") from problem
    except UnicodeDecodeError as problem:
        raise InvalidRequest(f"{path}: not a text file", field="consent") from problem
    except json.JSONDecodeError as problem:
        raise InvalidRequest(
            f"{path}: not JSON (line {problem.lineno}: {problem.msg}); a consent record is a JSON object with "
            f"{', '.join(Consent.model_fields)}",
            field="consent",
        ) from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{path}: {name}: {first['msg']}", field=f"consent.{name}") from problem


def consent_line(consent: Consent | None) -> str:
    """One line for terminals, reports and the output's metadata."""
    if consent is None:
        return NO_CONSENT
    return (
        f"consent of {consent.subject}, granted by {consent.granted_by} on {consent.date.isoformat()} "
        f"for {consent.scope} ({consent.reference})"
    )
