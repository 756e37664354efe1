from __future__ import annotations

import sys
from pathlib import Path

import pytest

from services.render import export


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    export.main()


def test_exported_networks_become_a_model_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--triton", str(tmp_path))
    assert {Path(line).name for line in capsys.readouterr().out.split()} == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "ugc" / "config.pbtxt").is_file()


def test_a_folder_without_networks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--triton", str(tmp_path / "out"), "--out", str(tmp_path))
    assert "no exported model" in capsys.readouterr().err
