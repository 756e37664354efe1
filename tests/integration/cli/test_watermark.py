"""`dubstage watermark publish`: a signed entry that says whom to ask about the watermarks of an installation."""

import json
from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.provenance.directory import entries_of, read_directories
from gateway.provenance.installation import own_watermark_key, trusted_authorities
from gateway.provenance.verdict import ManifestState
from gateway.provenance.watermark.payload import installation_of
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.unit.provenance.conftest import carphone

__all__ = ["carphone"]

NAMED = ["--name", "A studio", "--contact", "https://studio.example/watermarks"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data folder of an installation."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_published_entry_is_that_of_the_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "studio.json"
    assert run(["watermark", "publish", "-o", str(file), *NAMED]) == 0
    settings = load_settings(GatewaySettings)
    key = own_watermark_key(settings)
    assert key is not None
    name = f"{installation_of(key):03x}"
    shown = capsys.readouterr()
    assert (shown.out, f"installation {name}" in shown.err) == (f"{file}\n", True)
    (found,) = entries_of(read_directories([file]), name, trusted_authorities(settings))
    assert (found.state, found.entry.name, found.entry.contact) == (ManifestState.TRUSTED, NAMED[1], NAMED[3])
    assert run(["watermark", "publish", "-o", str(file), *NAMED]) == 10
    assert f"{file} exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--name", "", "--contact", NAMED[3]], "--name is 1 to 200 characters"),
        (["--name", "A", "--contact", "http://studio.example"], "--contact is https://... or mailto:..."),
    ],
)
def test_wrong_entry_is_refused(words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watermark", "publish", "-o", str(tmp_path / "studio.json"), *words]) == 10
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "studio.json").exists()


@pytest.mark.parametrize("setting", ["DUBSTAGE_WATERMARK", "DUBSTAGE_WATERMARK_PUBLIC"])
def test_nothing_to_publish(setting, data, tmp_path, monkeypatch, capsys) -> None:
    """An installation without public watermarks has no entry."""
    monkeypatch.setenv(setting, "false")
    assert run(["watermark", "publish", "-o", str(tmp_path / "studio.json"), *NAMED]) == 10
    assert "this installation writes no public watermarks" in capsys.readouterr().err
    assert not data.exists()


def test_anybody_checks_a_video(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine that has never dubbed looks for public watermarks, and makes neither key nor folder."""
    video = tmp_path / "video.mp4"
    video.symlink_to(carphone)
    assert run(["inspect", "--json", str(video)]) == 4
    found = json.loads(capsys.readouterr().out)["watermark"]
    assert (found["found"], found["standing"]) == (False, None)
    assert not data.exists()


def test_file_that_is_no_directory(carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("words")
    assert run(["inspect", "--no-watermark", str(carphone), "--directory", str(tmp_path / "words.txt")]) == 10
    shown = capsys.readouterr()
    assert "words.txt, line 1" in shown.err
    assert shown.out == ""
