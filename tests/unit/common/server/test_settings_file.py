"""The settings file: values below the environment, and errors that name the file, the key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.server.settings import StageSettings, load_settings
from services.common.server.settings_file import settings_file
from services.render.settings import RenderSettings
from tests.refusals import error_line


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings file of the user, which is not written yet, without variables of the environment that matter here."""
    monkeypatch.delenv("DUBSTAGE_SETTINGS_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("DATA_DIR", "ARTEFACTS_URL", "COMPUTE_THREADS", "DEVICE"):
        monkeypatch.delenv(f"DUBSTAGE_{name}", raising=False)
    path = tmp_path / "config" / "dubstage" / "settings.toml"
    path.parent.mkdir(parents=True)
    return path


def test_every_component_reads_its_values(file: Path, tmp_path: Path) -> None:
    """One file has the settings of the gateway and of the stages, and each takes its own."""
    assert settings_file() is None
    file.write_text(f'data_dir = "{tmp_path}"\ncompute_threads = 3\nwatermark = false\ndevice = "cpu"\n')
    gateway, render = load_settings(GatewaySettings), load_settings(RenderSettings)
    assert (gateway.data_dir, gateway.compute_threads, gateway.watermark) == (tmp_path, 3, False)
    assert (render.compute_threads, render.device) == (3, "cpu")
    # Stages find the store of the gateway.
    assert render.artefacts_url == gateway.artefacts_url == str(tmp_path / "artefacts")


def test_environment_wins_over_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options win over variables, and variables win over the file; an empty variable counts as unset."""
    file.write_text("compute_threads = 3\n")
    monkeypatch.setenv("DUBSTAGE_COMPUTE_THREADS", "")
    assert load_settings(GatewaySettings).compute_threads == 3
    monkeypatch.setenv("DUBSTAGE_COMPUTE_THREADS", "5")
    assert load_settings(GatewaySettings).compute_threads == 5
    assert load_settings(GatewaySettings, compute_threads=7).compute_threads == 7
    other = tmp_path / "other.toml"
    other.write_text("worker_threads = 9\n")
    monkeypatch.setenv("DUBSTAGE_SETTINGS_FILE", str(other))
    assert load_settings(StageSettings).worker_threads == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("compute_thread = 3", "there is no setting 'compute_thread': did you mean compute_threads?"),
        ("DUBSTAGE_DEVICE = 'cpu'", "there is no setting 'DUBSTAGE_DEVICE': did you mean device?"),
        ("zzz = 3", "there is no setting 'zzz': docs/reference/settings.md lists the settings"),
        ("[gateway]\nport = 1", "gateway: give a text, a number, true or false"),
        ("compute_threads = 0", "compute_threads: Input should be greater than or equal to 1"),
        ("compute_threads = ", "the settings file is no TOML: Invalid value (at end of document)"),
        ("x = '\udcff'", "the settings file is no TOML"),
    ],
)
def test_wrong_file_is_named(content: str, said: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in the file is answered with one line that names the file and the key."""
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert run(["actor", "list"]) == 10
    assert f"{file}: {said}" in error_line(capsys)


def test_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that DUBSTAGE_SETTINGS_FILE names is not optional, and neither is a folder in its place."""
    for place in (tmp_path / "missing.toml", tmp_path):
        monkeypatch.setenv("DUBSTAGE_SETTINGS_FILE", str(place))
        with pytest.raises(InvalidRequestError, match="settings file cannot"):
            load_settings(StageSettings)


def test_wrong_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable is named as such, also if the file has the setting."""
    file.write_text("compute_threads = 3\n")
    monkeypatch.setenv("DUBSTAGE_COMPUTE_THREADS", "0")
    with pytest.raises(InvalidRequestError, match="wrong settings: DUBSTAGE_COMPUTE_THREADS: "):
        load_settings(StageSettings)
