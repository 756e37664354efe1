"""What the command line says when it is used wrongly: one line, an exit code, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.app import run

CONSENT = {"subject": "Ann", "granted_by": "Ann", "scope": "one film", "date": "2026-02-01", "reference": "folder 3"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))


def consent_file(folder: Path, **changes: object) -> str:
    path = folder / "consent.json"
    record = {name: value for name, value in {**CONSENT, **changes}.items() if value is not None}
    path.write_text(json.dumps(record))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", "everything"], 10, "no server 'everything'"),
        (["live", "ann", "--audio", "speech.wav"], 10, "--output"),
        (["live", "ann", "--audio", "speech.wav", "--show-latency"], 10, "speech.wav"),
        (["dub", "in.mp4", "-o", "out.mp4", "--face", "the left one"], 10, "face takes"),
        (["dub", "in.mp4", "-o", "out.mp4", "--consent", "none.json"], 10, "none.json"),
        (["dub", "in.mp4", "-o", "out.mp4", "--actor", "nobody"], 11, "no actor 'nobody'"),
        (["actor", "show", "nobody"], 11, "no actor 'nobody'"),
        (["actor", "erase", "nobody"], 11, "no actor 'nobody'"),
    ],
)
def test_a_wrong_command_is_answered_with_one_line_and_its_code(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


@pytest.mark.parametrize("arguments", [["dub"], ["dub", "in.mp4"], ["nonsense"], ["serve"], ["live", "ann"]])
def test_missing_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DUBSTAGE_MAX_CONCURRENT_JOBS", "many")
    assert run(["actor", "list"]) == 10
    assert "DUBSTAGE_MAX_CONCURRENT_JOBS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scope": None}, "scope"),
        ({"date": "yesterday"}, "date"),
        ({"subject": " "}, "subject"),
        ({"signature": "x"}, "signature"),
    ],
)
def test_a_consent_record_that_is_none_is_refused_with_the_field(
    tmp_path: Path, changes: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dub", "in.mp4", "-o", "out.mp4", "--consent", consent_file(tmp_path, **changes)]) == 10
    assert f"consent.json: {said}" in capsys.readouterr().err


def test_consent_that_is_required_and_missing_stops_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUBSTAGE_REQUIRE_CONSENT", "1")
    assert run(["dub", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "out.mp4")]) == 11
    assert "--consent FILE" in capsys.readouterr().err
