"""What a consent record covers: projects, languages and time."""

from __future__ import annotations

import datetime

import pytest

from gateway.consent.use import ConsentUse, check_scope, check_time, use_of
from services.common.consent_errors import ConsentExpired, ConsentNotYetValid, ConsentOutOfScope
from services.common.errors import InvalidRequest
from tests.unit.consent.records import record


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
    with pytest.raises(ConsentOutOfScope, match="covers the languages de, pt-BR only"):
        check_scope(record(languages=["de", "pt-BR"]), ConsentUse(language=language), "ann")


def test_an_enrolment_has_no_language_that_could_be_wrong() -> None:
    check_scope(record(languages=["de"]), ConsentUse(language=None), "ann")


@pytest.mark.parametrize(
    ("project", "says"), [("", "the request names no project"), ("Night", "not 'Night'"), ("nigh", "not 'nigh'")]
)
def test_another_project_or_none_is_beyond_the_record(project: str, says: str) -> None:
    found = record(projects=["night", "day"])
    check_scope(found, ConsentUse("night"), "ann")
    with pytest.raises(ConsentOutOfScope, match=says) as caught:
        check_scope(found, ConsentUse(project), "ann")
    assert caught.value.subject == "ann"


def test_a_record_holds_from_its_first_instant_until_its_last_is_over() -> None:
    found = record(valid_from="2027-01-01T00:00:00Z", valid_until="2027-01-31T18:00:00+01:00")
    begin = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(2027, 1, 31, 17, tzinfo=datetime.UTC)
    second = datetime.timedelta(seconds=1)
    check_time(found, begin, "ann")
    check_time(found, end - second, "ann")
    with pytest.raises(ConsentNotYetValid, match="from 2027-01-01T00:00:00Z on"):
        check_time(found, begin - second, "ann")
    with pytest.raises(ConsentExpired, match="ended at 2027-01-31T17:00:00Z"):
        check_time(found, end, "ann")


@pytest.mark.parametrize(
    ("project", "language", "field"),
    [("a\nb", "", "project"), ("x" * 201, "", "project"), ("", "german!", "language"), ("", "d" * 90, "language")],
)
def test_names_that_cannot_be_names_are_refused(project: str, language: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        use_of(project, language)
    assert caught.value.field == field
