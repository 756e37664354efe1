"""The consent record: its canonical form, the use and the time that it covers, and the line that says whose consent a video has."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from services.common.errors import ConsentExpiredError, ConsentNotYetValidError, ConsentOutOfScopeError, InvalidRequestError

if TYPE_CHECKING:
    from services.common.array_types import Float32

NO_CONSENT: Final = "no consent on record"
"""Line for a video without a consent record."""
EARLIEST: Final = datetime.date(1900, 1, 1)
"""Earliest date of a consent record."""
SIGNATURE_BYTES: Final = 64
"""Length of an Ed25519 signature, bytes."""
MOST_NAMES: Final = 100
"""Most projects, most languages, and most digests of footage of one record."""
EMBEDDING_SIZE: Final = 128
"""Numbers of a face embedding."""
_CONTEXT: Final = (b"dubstage consent v1\n", b"dubstage consent v2\n")
"""First bytes of the canonical form of records without and with a subject, so that no signature of another kind of text is a
signature of a consent record.
"""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, marks of writing direction, halves of characters and line breaks."""
_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners: names in Persian and Indic scripts are written with them."""
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", re.ASCII)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}")
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _plain(text: str) -> str:
    """Return a text without characters that a terminal, a page or a video's comment would act on instead of showing them."""
    for index, character in enumerate(text):
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
            raise ValueError(f"character {index + 1} is {character!a}: write one line without control characters")
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


def _instant(value: Any) -> datetime.datetime:
    """Return the instant of a text with a time zone, in UTC."""
    try:
        if not _INSTANT.fullmatch(value):
            raise ValueError
        instant = datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        shown = ascii(value)
        raise ValueError(
            f"expected a time with its zone, such as 2027-01-31T18:00:00Z or 2027-01-31T18:00:00+01:00, not {shown[:40]}"
        ) from None
    if instant.date() < EARLIEST:
        raise ValueError(f"{instant_text(instant)} is before {EARLIEST.isoformat()}")
    return instant


def instant_text(instant: datetime.datetime) -> str:
    """Return an instant as the canonical form writes instants, such as 2027-01-31T18:00:00Z."""
    return instant.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _language(tag: str) -> str:
    if not _LANGUAGE.fullmatch(tag):
        raise ValueError(f"{tag[:40]!a} is no language tag, such as de or pt-BR (BCP 47)")
    return tag


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named twice")
    return names


def _is_signature(text: str) -> str:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    # Every signature has one text only.
    if len(value) != SIGNATURE_BYTES or base64.b64encode(value).decode() != text:
        raise ValueError(f"expected the {SIGNATURE_BYTES} bytes of an Ed25519 signature in base64")
    return text


def _is_embedding(text: str) -> str:
    # Imported here, in `embedding_text` and in `ConsentFace.vector`: most records hold no face, and commands that show them start
    # faster without NumPy.
    import numpy as np

    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    except (binascii.Error, ValueError):
        vector = np.zeros(0, np.float32)
    # Every embedding has one text only. Numbers above 1 do not occur, and sums of squares of huge ones are infinite.
    if vector.shape != (EMBEDDING_SIZE,) or not (np.abs(vector) <= 1.0).all() or embedding_text(vector) != text:
        raise ValueError(
            f"expected {EMBEDDING_SIZE} little-endian float32 numbers in base64, as `dubstage consent subject` prints them"
        )
    return text


def embedding_text(vector: Float32) -> str:
    """Return a face embedding, float32 [128], as records hold it: little-endian numbers in base64."""
    import numpy as np

    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


_Plain = AfterValidator(_plain)
_Instant = Annotated[datetime.datetime, BeforeValidator(_instant), PlainSerializer(instant_text)]
ProjectName = Annotated[str, _Plain, Field(min_length=1, max_length=200)]
"""Name of a project."""
LanguageTag = Annotated[str, AfterValidator(_language)]
"""Tag of a language (BCP 47), such as `de` or `pt-BR`."""


class ConsentSignature(BaseModel):
    """Signature of a consent record.

    Attributes:
        algorithm: always Ed25519. There is no other, so that nobody who writes a record can choose a weaker one.
        key: SHA-256 of the public key (SubjectPublicKeyInfo, DER), 64 hexadecimal digits.
        value: the signature of `canonical_form`, 64 bytes in base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal["Ed25519"]
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    value: Annotated[str, AfterValidator(_is_signature)]


class ConsentFace(BaseModel):
    """Face of the person whom a record is about. Personal data.

    Attributes:
        network: name of the network that computed the embedding.
        embedding: mean embedding of the face over several frames, 128 little-endian float32 numbers in base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    embedding: Annotated[str, AfterValidator(_is_embedding)]

    @property
    def vector(self) -> Float32:
        """The embedding, float32 [128]."""
        import numpy as np

        return np.frombuffer(base64.b64decode(self.embedding), "<f4").astype(np.float32)


class Consent(BaseModel):
    """Consent record: who agreed to what, when, for which use, and where the original is kept.

    Attributes:
        subject: the person whose face is dubbed.
        granted_by: the person who gave the consent.
        scope: what the consent covers, in the granter's words. Nothing is checked by this text.
        date: day on which the consent was granted.
        reference: where the original is kept.
        projects: projects that the consent covers; None: every project.
        languages: languages of the speech that the consent covers; `en` covers `en-GB`. None: every language.
        valid_from: first instant of the consent; None: the consent has no beginning.
        valid_until: first instant after the consent; None: the consent has no end.
        actor: the only actor that the record covers; None: the record names no actor.
        footage_sha256: SHA-256 of files of footage that show the person; None: the record names no footage.
        face: face of the person; None: the record has no face.
        signature: signature over all other fields; None: the record is not signed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    subject: Annotated[str, _Plain] = Field(min_length=1, max_length=200)
    granted_by: Annotated[str, _Plain] = Field(min_length=1, max_length=200)
    scope: Annotated[str, _Plain] = Field(min_length=1, max_length=2000)
    date: Annotated[datetime.date, BeforeValidator(_iso_date), AfterValidator(_in_the_past)]
    reference: Annotated[str, _Plain] = Field(min_length=1, max_length=500)
    projects: Annotated[tuple[ProjectName, ...], Field(min_length=1, max_length=MOST_NAMES), AfterValidator(_once)] | None = None
    languages: Annotated[tuple[LanguageTag, ...], Field(min_length=1, max_length=MOST_NAMES), AfterValidator(_once)] | None = None
    valid_from: _Instant | None = None
    valid_until: _Instant | None = None
    actor: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    footage_sha256: Annotated[tuple[_Digest, ...], Field(min_length=1, max_length=MOST_NAMES), AfterValidator(_once)] | None = None
    face: ConsentFace | None = None
    signature: ConsentSignature | None = None

    @model_validator(mode="after")
    def _has_a_duration(self) -> Self:
        if self.valid_from is not None and self.valid_until is not None and self.valid_from >= self.valid_until:
            raise ValueError("valid_until must come after valid_from")
        return self

    @property
    def names_person(self) -> bool:
        """Whether the record names the person by footage or by face. An id says nothing of the person who is enrolled under it."""
        return self.footage_sha256 is not None or self.face is not None

    @property
    def names_subject(self) -> bool:
        """Whether the record says whose face it is about: by actor, footage or face."""
        return self.actor is not None or self.names_person

    def fields(self) -> dict[str, Any]:
        """Return the record as the JSON object that its file holds. Fields that the record does not have are left out."""
        return self.model_dump(mode="json", exclude_none=True)


def canonical_form(consent: Consent) -> bytes:
    """Return the bytes that a signature signs: a line with the version of the form, then the record without its signature.

    Records without a subject have version 1. Records with a subject have version 2.

    The record is JSON in the canonical form of RFC 8785: keys in alphabetical order, no spaces, UTF-8. Texts have no spaces at
    their ends, and instants are in UTC. Equal records have equal bytes, whatever the layout of their files.
    """
    fields = consent.fields()
    fields.pop("signature", None)
    return _CONTEXT[consent.names_subject] + json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(consent: Consent) -> str:
    """Return the SHA-256 of a record's canonical form, 64 hexadecimal digits: the record's name where no name may stand.

    The same record has the same digest with and without a signature.
    """
    return hashlib.sha256(canonical_form(consent)).hexdigest()


def consent_line(consent: Consent | None) -> str:
    """Return one line about the consent, for terminals, reports and the video's metadata."""
    if consent is None:
        return NO_CONSENT
    limits = [
        *([f"projects {', '.join(consent.projects)}"] if consent.projects else []),
        *([f"languages {', '.join(consent.languages)}"] if consent.languages else []),
        *([f"from {instant_text(consent.valid_from)}"] if consent.valid_from else []),
        *([f"until {instant_text(consent.valid_until)}"] if consent.valid_until else []),
        *(["signed"] if consent.signature else []),
    ]
    return (
        f"consent of {consent.subject}, granted by {consent.granted_by} on {consent.date.isoformat()} "
        f"for {consent.scope} ({'; '.join([consent.reference, *limits])})"
    )


_PROJECT: TypeAdapter[str] = TypeAdapter(ProjectName)
_LANGUAGE_TAG: TypeAdapter[str] = TypeAdapter(LanguageTag)


@dataclass(frozen=True, slots=True)
class ConsentUse:
    """Use that a consent record must cover.

    Attributes:
        project: project that the work belongs to; empty: the request names none.
        language: language of the new speech (BCP 47); empty: the request names none. None: the work has no speech, as an enrolment.
    """

    project: str = ""
    language: str | None = ""


def use_of(project: str, language: str | None) -> ConsentUse:
    """Return the use that a request names.

    Raises:
        InvalidRequestError: the name of the project or the tag of the language is not allowed.
    """
    project = project.strip()
    for field, adapter, value in (("project", _PROJECT, project), ("language", _LANGUAGE_TAG, language)):
        try:
            if value:
                adapter.validate_python(value)
        except ValidationError as problem:
            said = problem.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidRequestError(said, field=field, named=True) from None
    return ConsentUse(project, language)


def check_scope(consent: Consent, use: ConsentUse, subject: str) -> None:
    """Check that a record covers a use.

    Raises:
        ConsentOutOfScopeError: the record names projects or languages, and those of the use are not among them or are not named.
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
        ConsentNotYetValidError, ConsentExpiredError: the time of the consent has not begun, or is over.
    """
    if consent.valid_from is not None and now < consent.valid_from:
        raise ConsentNotYetValidError(f"the consent holds from {instant_text(consent.valid_from)} on", subject=subject)
    if consent.valid_until is not None and now >= consent.valid_until:
        raise ConsentExpiredError(
            f"the consent ended at {instant_text(consent.valid_until)}: ask the person for a new consent record", subject=subject
        )


def _covered(language: str, languages: tuple[str, ...]) -> bool:
    wanted = f"{language.lower()}-"
    return any(wanted.startswith(f"{tag.lower()}-") for tag in languages)


def _beyond(what: str, covered: tuple[str, ...], wanted: str, subject: str) -> ConsentOutOfScopeError:
    names = ", ".join(covered[:10]) + (", ..." if len(covered) > 10 else "")
    asked = f"not {wanted!r}" if wanted else f"and the request names no {what}"
    return ConsentOutOfScopeError(f"the consent record covers the {what}s {names} only, {asked}", subject=subject)
