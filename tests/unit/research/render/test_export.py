from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from research.render import export as render_export
from research.render.export import ExportJob, RendererExportSpec, export_renderer, write_calibration
from research.training.run_folder import RunFolder
from services.common.errors import ContractBrokenError, InvalidRequestError
from tests.refusals import raised

SPEC = RendererExportSpec(name="toy", weights="toy.safetensors", load=lambda _path: nn.Identity(), inputs=lambda _network: ())


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run of a renderer."""
    run = tmp_path / "run"
    RunFolder(run, "toy_renderer", {"loop": {"steps": 1}}).begin(resume=False)
    for name in ("toy.safetensors", "judge.safetensors", "CARD.md"):
        (run / name).write_text(name)
    write_calibration(run, np.full((2, 4, 4, 9), 7, np.uint8))
    return run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[ExportJob]:
    """Exports of a renderer `toy`, which writes two files and a sheet."""
    jobs: list[ExportJob] = []

    def export(spec: RendererExportSpec, job: ExportJob) -> Path:
        assert spec is SPEC
        jobs.append(job)
        job.folder.mkdir(parents=True)
        for ending in (".onnx", ".int8.onnx", ".export.json"):
            (job.folder / f"toy{ending}").write_text(json.dumps(dict(job.training or {})))
        return job.folder / "toy.onnx"

    monkeypatch.setattr(render_export, "export_network", export)
    return jobs


def test_export_has_card_and_weights(finished: Path, jobs: list[ExportJob], tmp_path: Path) -> None:
    """A run is exported with its card and all weights that the stage needs."""
    folder = tmp_path / "render"
    paths = export_renderer(SPEC, lambda _run: ("judge.safetensors",), finished, folder)
    assert set(paths) == set(folder.iterdir())
    assert {path.name for path in paths} == {
        "toy.onnx", "toy.int8.onnx", "toy.export.json", "toy.card.md", "toy.safetensors", "judge.safetensors",
    }  # fmt: skip
    (job,) = jobs
    assert job.weights == finished / "toy.safetensors"
    assert job.calibration is not None
    assert job.calibration.shape == (2, 4, 4, 9)
    assert json.loads((folder / "toy.export.json").read_text()) == {"network": "toy_renderer", "config": {"loop": {"steps": 1}}}


def test_a_run_that_is_not_complete_is_refused(finished: Path, jobs: list[ExportJob], tmp_path: Path) -> None:
    (finished / "calibration.npy").unlink()
    with raised(InvalidRequestError, match="--resume", field="run"):
        export_renderer(SPEC, lambda _run: (), finished, tmp_path / "render")
    assert not jobs


def test_an_export_that_is_refused_writes_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_spec: RendererExportSpec, _job: ExportJob) -> Path:
        raise ContractBrokenError("differs")

    monkeypatch.setattr(render_export, "export_network", refuse)
    with pytest.raises(ContractBrokenError):
        export_renderer(SPEC, lambda _run: ("judge.safetensors",), finished, tmp_path / "render")
    assert not (tmp_path / "render").exists()
