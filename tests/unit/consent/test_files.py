"""Consent records in files."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from gateway.consent.files import read_consent, write_new_consent
from gateway.consent.record import NO_CONSENT, consent_line
from services.common.errors import InvalidRequestError, StorageRefusedError

RECORD = {"subject": "Ada", "granted_by": "Ada", "scope": "demo videos", "date": "2026-05-01", "reference": "file 7"}


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "consent.json"
    path.write_text(content)
    return path


def test_whole_record_in_one_line(tmp_path: Path) -> None:
    """A whole record is read and shown in one line."""
    consent = read_consent(write(tmp_path, json.dumps(RECORD)))
    assert consent_line(consent) == "consent of Ada, granted by Ada on 2026-05-01 for demo videos (file 7)"


def test_without_a_record_the_line_says_so() -> None:
    assert consent_line(None) == NO_CONSENT == "no consent on record"


@pytest.mark.parametrize("missing", sorted(RECORD))
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    content = json.dumps({key: value for key, value in RECORD.items() if key != missing})
    with pytest.raises(InvalidRequestError, match=missing):
        read_consent(write(tmp_path, content))


@pytest.mark.parametrize(("content", "says"), [("{", "not JSON"), ("[]", r"consent\.json"), ('{"date": 3}', "subject")])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        read_consent(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "is a JSON object with subject, granted_by, scope, date and reference; this file holds a list"),
        ("null", "this file holds null"),
        ("[" * 50_000, "not a consent record"),
        ("9" * 5_000, "not a consent record"),
        ("\x00", "not JSON"),
        (json.dumps({**RECORD, "subject": "x" * (70 << 10)}), "larger than 64 KiB"),
        (json.dumps({**RECORD, "[/]": "x"}), r"consent\.json: \[/\]: is not a field of a consent record"),
        (json.dumps({**RECORD, "subject": "A\x1b[31m"}), "subject: character 2 is "),
        (json.dumps({**RECORD, "scope": "one\ntwo"}), "scope: character 4 is "),
        (json.dumps({**RECORD, "reference": "a\u202eb"}), "reference: character 2 is "),
        (json.dumps({**RECORD, "granted_by": "\ud800"}), "granted_by: "),
        (json.dumps({**RECORD, "subject": ["Ada"]}), "subject: "),
    ],
)
def test_hostile_files_refused(tmp_path: Path, content: str, says: str) -> None:
    """Files that mean harm are refused by what is wrong."""
    with pytest.raises(InvalidRequestError, match=says):
        read_consent(write(tmp_path, content))


@pytest.mark.parametrize(
    "date", ["0000-01-01", "0001-01-01", "1899-12-31", "9999-12-31", "2026-02-30", "20260501", "today", "", 0, 1e300, None, True]
)
def test_impossible_day_refused(tmp_path: Path, date: object) -> None:
    """A day on which no one can have agreed is refused."""
    with pytest.raises(InvalidRequestError, match=r"consent\.json: date: "):
        read_consent(write(tmp_path, json.dumps({**RECORD, "date": date})))


def test_tomorrow_allowed_day_after_not(tmp_path: Path) -> None:
    """Tomorrow is today somewhere and the day after is not."""
    today = datetime.datetime.now(datetime.UTC).date()
    day = datetime.timedelta(days=1)
    assert read_consent(write(tmp_path, json.dumps({**RECORD, "date": str(today)}))).date == today
    with pytest.raises(InvalidRequestError, match="is in the future"):
        read_consent(write(tmp_path, json.dumps({**RECORD, "date": str(today + 3 * day)})))


def test_names_in_any_script_are_kept(tmp_path: Path) -> None:
    names = {"subject": "Zoë 李小龍", "granted_by": "می\u200cخواهم", "reference": "[red]folder[/] 😀"}
    consent = read_consent(write(tmp_path, json.dumps({**RECORD, **names})))
    assert consent.model_dump(include=set(names)) == names


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "long"])
def test_irregular_file_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A path that is no regular file is refused without waiting."""
    path = {"device": Path("/dev/zero"), "folder": tmp_path, "long": tmp_path / ("x" * 300)}.get(kind, tmp_path / kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "loop":
        path.symlink_to(path)
    with pytest.raises(InvalidRequestError, match=r"not a regular file|cannot be read"):
        read_consent(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"absent\.json: cannot be read"):
        read_consent(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORD)[:-1] + ', "subject": "Bob"}',
        json.dumps(RECORD)[:-1] + ', "signature": {"key": "a", "key": "b"}}',
        '{"subject": "Bob", ' + json.dumps(RECORD)[1:],
    ],
)
def test_a_field_that_stands_twice_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidRequestError, match="stands twice"):
        read_consent(write(tmp_path, content))


def test_a_wrong_field_of_a_signature_is_named(tmp_path: Path) -> None:
    signature = {"algorithm": "none", "key": "0" * 64, "value": ""}
    with pytest.raises(InvalidRequestError, match=r"signature\.algorithm") as caught:
        read_consent(write(tmp_path, json.dumps({**RECORD, "signature": signature})))
    assert caught.value.field == "consent.signature.algorithm"


def test_written_record_owner_only(tmp_path: Path) -> None:
    """A written record is read again and only its owner may read it."""
    consent = read_consent(write(tmp_path, json.dumps({**RECORD, "projects": ["night"], "languages": ["de"]})))
    path = tmp_path / "written.json"
    write_new_consent(path, consent)
    assert read_consent(path) == consent
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidRequestError, match="exists"):
        write_new_consent(path, consent)
    with pytest.raises(StorageRefusedError):
        write_new_consent(tmp_path / "absent" / "written.json", consent)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["consent.json", "written.json"]
