"""Tests of consent records: fields, canonical form, digest, and the projects, languages and times that a record covers."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gateway.consent.keys import signed
from gateway.consent.record import (
    Consent,
    ConsentUse,
    canonical_form,
    check_scope,
    check_time,
    consent_line,
    digest_of,
    embedding_text,
    use_of,
)
from services.common.errors import ConsentExpiredError, ConsentNotYetValidError, ConsentOutOfScopeError, InvalidRequestError
from tests.unit.consent.records import RECORD, STUDIO, face, record


def test_canonical_form() -> None:
    """The canonical form is a line with the version and canonical JSON."""
    found = record(subject="Zoë", projects=["b", "a"], valid_until="2027-01-31T18:00:00+01:00")
    assert canonical_form(found).decode() == (
        "dubstage consent v1\n"
        '{"date":"2026-02-01","granted_by":"Ann","projects":["b","a"],"reference":"folder 3","scope":"one film","subject":"Zoë",'
        '"valid_until":"2027-01-31T17:00:00Z"}'
    )
    assert digest_of(found) == hashlib.sha256(canonical_form(found)).hexdigest()


def test_five_field_record_form() -> None:
    """A record of five fields has a form of five fields."""
    assert record().fields() == RECORD
    assert canonical_form(record()).count(b'":') == 5


def test_earlier_records_keep_signature() -> None:
    """A withdrawal, a signature and a manifest name a record by this digest for ever."""
    assert digest_of(record()) == "04f4e8b5cc284b9c8c449b3c0aadad25d68dca482ec9b93dd5c474ab8ba0fdf5"


def test_subject_record_has_version_2() -> None:
    """A record with a subject has version 2 and signs all of the subject."""
    found = record(actor="ann", footage_sha256=["b" * 64, "a" * 64], face=face())
    first, rest = canonical_form(found).decode().split("\n")
    assert first == "dubstage consent v2"
    assert rest == json.dumps(
        {
            "actor": "ann",
            "date": "2026-02-01",
            "face": {"embedding": face()["embedding"], "network": "of-tests"},
            "footage_sha256": ["b" * 64, "a" * 64],
            "granted_by": "Ann",
            "reference": "folder 3",
            "scope": "one film",
            "subject": "Ann",
        },
        separators=(",", ":"),
    )
    assert np.linalg.norm(found.face.vector) == pytest.approx(1.3, abs=1e-6)
    assert [one.names_person for one in (record(), record(actor="ann"), record(face=face()), found)] == [False, False, True, True]
    assert [one.names_subject for one in (record(), record(actor="ann"), record(face=face()), found)] == [False, True, True, True]


def test_layout_and_signature_change_neither_form_nor_digest() -> None:
    turned = Consent.model_validate(dict(reversed(RECORD.items())) | {"scope": "  one film "})
    assert canonical_form(turned) == canonical_form(record())
    assert digest_of(signed(record(), STUDIO)) == digest_of(record())


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Anm"},
        {"date": "2026-02-02"},
        {"projects": ["night"]},
        {"languages": ["de"]},
        {"valid_until": "2027-01-31T00:00:00Z"},
        {"actor": "ann"},
        {"footage_sha256": ["0" * 64]},
        {"face": face()},
        {"face": face(seed=1)},
    ],
)
def test_any_other_field_makes_another_digest(change: dict[str, Any]) -> None:
    assert digest_of(record(**change)) != digest_of(record())


def test_a_record_comes_back_from_its_own_fields() -> None:
    subject = {"actor": "ann", "footage_sha256": ["0" * 64], "face": face()}
    whole = signed(record(projects=["night"], languages=["de"], valid_from="2026-02-01T00:00:00Z", **subject), STUDIO)
    assert Consent.model_validate(whole.fields()) == whole


@pytest.mark.parametrize("field", ["valid_from", "valid_until"])
@pytest.mark.parametrize(
    "value",
    [
        "2027-01-31",
        "2027-01-31T18:00:00",
        "2027-01-31T18:00Z",
        "2027-01-31 18:00:00Z",
        "2027-01-31T18:00:00.5Z",
        "2027-02-30T18:00:00Z",
        "2027-01-31T24:00:00Z",
        "2027-01-31T18:00:60Z",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "1899-12-31T23:59:59Z",
        "२०२७-01-31T18:00:00Z",
        1801418400,
        True,
        "",
    ],
)
def test_time_needs_zone(field: str, value: object) -> None:
    """A time without its zone or no time at all is refused."""
    with pytest.raises(ValidationError, match=field):
        record(**{field: value})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"projects": []}, "projects"),
        ({"projects": ["a", "a"]}, "'a' is named twice"),
        ({"projects": ["a", " a "]}, "'a' is named twice"),
        ({"projects": "night"}, "projects"),
        ({"projects": ["a\nb"]}, "character 2"),
        ({"projects": [f"p{number}" for number in range(101)]}, "projects"),
        ({"languages": []}, "languages"),
        ({"languages": ["german!"]}, "is no language tag"),
        ({"languages": ["e"]}, "is no language tag"),
        ({"valid_from": "2027-01-31T18:00:00Z", "valid_until": "2027-01-31T18:00:00Z"}, "must come after"),
        ({"actor": "Ann"}, "actor"),
        ({"actor": ""}, "actor"),
        ({"footage_sha256": []}, "footage_sha256"),
        ({"footage_sha256": ["A" * 64]}, "footage_sha256"),
        ({"footage_sha256": ["0" * 64, "0" * 64]}, "is named twice"),
        ({"footage_sha256": "0" * 64}, "footage_sha256"),
        ({"face": face(network="two words")}, "network"),
        ({"face": face(embedding="")}, "128 little-endian float32 numbers"),
        ({"face": face(embedding=face()["embedding"][:-4])}, "128 little-endian float32 numbers"),
        ({"face": face(embedding=f"{face()['embedding'][:-2]}B=")}, "128 little-endian float32 numbers"),
        ({"face": face(embedding=embedding_text(np.full(128, np.nan, np.float32)))}, "128 little-endian float32 numbers"),
        ({"face": face(embedding=embedding_text(np.full(128, 1e30, np.float32)))}, "128 little-endian float32 numbers"),
        ({"face": face(name="Ann")}, "name"),
        ({"face": {"network": "of-tests"}}, "embedding"),
        ({"signature": {"algorithm": "none", "key": "0" * 64, "value": ""}}, "algorithm"),
        ({"signature": {"algorithm": "HS256", "key": "0" * 64, "value": ""}}, "algorithm"),
        ({"signature": {"algorithm": "Ed25519", "key": "A" * 64, "value": ""}}, "key"),
        ({"signature": {"algorithm": "Ed25519", "key": "0" * 64, "value": "AAAA"}}, "64 bytes"),
        ({"signature": {"algorithm": "Ed25519", "key": "0" * 64, "value": f"{'A' * 85}B=="}}, "64 bytes"),
        ({"signature": {"algorithm": "Ed25519", "key": "0" * 64}}, "value"),
        ({"signature": {"algorithm": "Ed25519", "key": "0" * 64, "value": f"{'A' * 86}==", "kid": "x"}}, "kid"),
    ],
)
def test_fields_that_mean_nothing_are_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        record(**fields)


def test_record_line_shows_limits() -> None:
    """The line about a record says what limits it."""
    whole = signed(record(projects=["day", "night"], languages=["de"], valid_until="2027-01-31T18:00:00+01:00"), STUDIO)
    assert consent_line(whole) == (
        "consent of Ann, granted by Ann on 2026-02-01 for one film "
        "(folder 3; projects day, night; languages de; until 2027-01-31T17:00:00Z; signed)"
    )


def test_record_line_hides_face() -> None:
    """The line is written into videos and reports."""
    assert consent_line(record(actor="ann", footage_sha256=["0" * 64], face=face())) == consent_line(record())


@pytest.mark.parametrize(
    "use", [ConsentUse(), ConsentUse("night", "de"), ConsentUse("anything", "x-klingon"), ConsentUse(language=None)]
)
def test_a_record_without_limits_covers_every_use(use: ConsentUse) -> None:
    check_scope(record(), use, "ann")


@pytest.mark.parametrize("language", ["de", "DE", "de-AT", "pt-BR", "pt-br-x-rio"])
def test_a_language_covers_its_variants(language: str) -> None:
    check_scope(record(languages=["de", "pt-BR"]), ConsentUse(language=language), "ann")


@pytest.mark.parametrize("language", ["", "d", "den", "pt", "pt-PT", "x-de", "en"])
def test_another_language_or_none_is_beyond_the_record(language: str) -> None:
    with pytest.raises(ConsentOutOfScopeError, match="covers the languages de, pt-BR only"):
        check_scope(record(languages=["de", "pt-BR"]), ConsentUse(language=language), "ann")


def test_enrolment_needs_no_language() -> None:
    """An enrolment has no language that could be wrong."""
    check_scope(record(languages=["de"]), ConsentUse(language=None), "ann")


@pytest.mark.parametrize(
    ("project", "says"), [("", "the request names no project"), ("Night", "not 'Night'"), ("nigh", "not 'nigh'")]
)
def test_another_project_or_none_is_beyond_the_record(project: str, says: str) -> None:
    found = record(projects=["night", "day"])
    check_scope(found, ConsentUse("night"), "ann")
    with pytest.raises(ConsentOutOfScopeError, match=says) as caught:
        check_scope(found, ConsentUse(project), "ann")
    assert caught.value.subject == "ann"


def test_record_validity_bounds() -> None:
    """A record holds from its first instant until its last is over."""
    found = record(valid_from="2027-01-01T00:00:00Z", valid_until="2027-01-31T18:00:00+01:00")
    begin = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(2027, 1, 31, 17, tzinfo=datetime.UTC)
    second = datetime.timedelta(seconds=1)
    check_time(found, begin, "ann")
    check_time(found, end - second, "ann")
    with pytest.raises(ConsentNotYetValidError, match="from 2027-01-01T00:00:00Z on"):
        check_time(found, begin - second, "ann")
    with pytest.raises(ConsentExpiredError, match="ended at 2027-01-31T17:00:00Z"):
        check_time(found, end, "ann")


@pytest.mark.parametrize(
    ("project", "language", "field"),
    [("a\nb", "", "project"), ("x" * 201, "", "project"), ("", "german!", "language"), ("", "d" * 90, "language")],
)
def test_names_that_cannot_be_names_are_refused(project: str, language: str, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        use_of(project, language)
    assert caught.value.field == field
