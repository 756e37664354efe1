"""What a consent record covers: the use that is made of a person, and the time."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from gateway.consent.record import Consent, LanguageTag, ProjectName, instant_text
from services.common.consent_errors import ConsentExpired, ConsentNotYetValid, ConsentOutOfScope
from services.common.errors import InvalidRequest

_PROJECT: TypeAdapter[str] = TypeAdapter(ProjectName)
_LANGUAGE: TypeAdapter[str] = TypeAdapter(LanguageTag)


@dataclass(frozen=True, slots=True)
class ConsentUse:
    """What a consent record must cover.

    Attributes:
        project: project that the work belongs to; empty: the request names none.
        language: language of the new speech (BCP 47); empty: the request names none. None: the work has no speech, as an enrolment.
    """

    project: str = ""
    language: str | None = ""


def use_of(project: str, language: str | None) -> ConsentUse:
    """Return the use that a request names.

    Raises:
        InvalidRequest: the name of the project or the tag of the language is not allowed.
    """
    project = project.strip()
    for field, adapter, value in (("project", _PROJECT, project), ("language", _LANGUAGE, language)):
        try:
            if value:
                adapter.validate_python(value)
        except ValidationError as problem:
            said = problem.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidRequest(f"{field}: {said}", field=field) from None
    return ConsentUse(project, language)


def check_scope(consent: Consent, use: ConsentUse, subject: str) -> None:
    """Check that a record covers a use.

    Raises:
        ConsentOutOfScope: the record names projects or languages, and those of the use are not among them or are not named.
    """
    if consent.projects is not None and use.project not in consent.projects:
        raise _beyond("project", consent.projects, use.project, subject)
    if consent.languages is not None and use.language is not None and not _covered(use.language, consent.languages):
        raise _beyond("language", consent.languages, use.language, subject)


def check_time(consent: Consent, now: datetime.datetime, subject: str) -> None:
    """Check that a record holds at an instant.

    Args:
        consent: the record.
        now: the instant, with its time zone.
        subject: whom or what the error is about.

    Raises:
        ConsentNotYetValid, ConsentExpired: the time of the consent has not begun, or is over.
    """
    if consent.valid_from is not None and now < consent.valid_from:
        raise ConsentNotYetValid(f"the consent holds from {instant_text(consent.valid_from)} on", subject=subject)
    if consent.valid_until is not None and now >= consent.valid_until:
        raise ConsentExpired(
            f"the consent ended at {instant_text(consent.valid_until)}: ask the person for a new consent record", subject=subject
        )


def _covered(language: str, languages: tuple[str, ...]) -> bool:
    wanted = f"{language.lower()}-"
    return any(wanted.startswith(f"{tag.lower()}-") for tag in languages)


def _beyond(what: str, covered: tuple[str, ...], wanted: str, subject: str) -> ConsentOutOfScope:
    names = ", ".join(covered[:10]) + (", ..." if len(covered) > 10 else "")
    asked = f"not {wanted!r}" if wanted else f"and the request names no {what}"
    return ConsentOutOfScope(f"the consent record covers the {what}s {names} only, {asked}", subject=subject)
