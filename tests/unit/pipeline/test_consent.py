"""Consent records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.consent import NO_CONSENT, consent_line, read_consent
from services.common.errors import InvalidRequest

RECORD = {"subject": "Ada", "granted_by": "Ada", "scope": "demo films", "date": "2026-05-01", "reference": "file 7"}


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "consent.json"
    path.write_text(content)
    return path


def test_a_whole_record_is_read_and_told_in_one_line(tmp_path: Path) -> None:
    consent = read_consent(write(tmp_path, json.dumps(RECORD)))
    assert consent_line(consent) == "consent of Ada, granted by Ada on 2026-05-01 for demo films (file 7)"


def test_without_a_record_the_line_says_so() -> None:
    assert consent_line(None) == NO_CONSENT == "no consent on record"


@pytest.mark.parametrize("missing", sorted(RECORD))
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    content = json.dumps({key: value for key, value in RECORD.items() if key != missing})
    with pytest.raises(InvalidRequest, match=missing):
        read_consent(write(tmp_path, content))


@pytest.mark.parametrize(("content", "says"), [("{", "not JSON"), ("[]", r"consent\.json"), ('{"date": 3}', "subject")])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_consent(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"absent\.json: cannot be read"):
        read_consent(tmp_path / "absent.json")
