from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.render import export
from services.render.renderer import ExportJob, Renderer
from services.render.renderers.registry import RENDERERS


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    export.main()


def test_all_renderers_are_exported_or_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs: list[tuple[str, ExportJob]] = []

    def recorder(name: str) -> Renderer:
        def record(job: ExportJob) -> Path:
            jobs.append((name, job))
            return job.folder / f"{name}.onnx"

        return replace(RENDERERS["ugc"], name=name, export=record)

    for name in [*RENDERERS, "two"]:
        monkeypatch.setitem(RENDERERS, name, recorder(name))
    run(monkeypatch, "--out", str(tmp_path))
    assert [name for name, _ in jobs] == sorted(RENDERERS)
    jobs.clear()
    np.save(tmp_path / "pictures.npy", np.zeros((1, 2, 2, 1), np.uint8))
    run(monkeypatch, "--model", "two", "--out", str(tmp_path), "--int8", str(tmp_path / "pictures.npy"))
    ((name, job),) = jobs
    assert name == "two"
    assert job.calibration is not None
    assert job.weights is None
    assert "two.onnx" in capsys.readouterr().out


def test_a_name_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--model", "nobody")
    assert "there are everybody, headpose, ugc" in capsys.readouterr().err


def test_weights_belong_to_one_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--weights", "some.safetensors")
    assert "--model" in capsys.readouterr().err
