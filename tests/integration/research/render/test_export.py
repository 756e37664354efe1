import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from research.render.export import ExportJob, RendererExportSpec, export_network
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.render.backends.model_files import OUTPUT_RESIDUAL, TensorForm, read_models
from services.render.types import Precision

FORMS = (
    TensorForm("picture", "uint8", (320, 320, 3)),
    TensorForm("speech_features", "float32", (5,)),
    TensorForm("reference", "uint8", (1, 320, 320, 3)),
    TensorForm("actor_state", "float32", (4,)),
)


class TinyConfig:
    def to_metadata(self) -> dict[str, Any]:
        return {"levels": 1}


class TinyNetwork(nn.Module):
    """Network as served, with inputs of its own: speech per frame, a reference picture, a box of 320 pixels."""

    state_size = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.config = TinyConfig()
        self.conv = nn.Conv2d(6, 3, 3, padding=1)
        self.speech = nn.Linear(5, 3)

    def forward(self, picture: Tensor, speech_features: Tensor, reference: Tensor, actor_state: Tensor) -> Tensor:
        shown = torch.cat([picture, reference[:, 0]], dim=3).permute(0, 3, 1, 2)
        made = self.conv(shown.to(torch.float32) / 255.0) + self.speech(speech_features)[:, :, None, None]
        return (made * (1.0 + actor_state[:, :1, None, None])).permute(0, 2, 3, 1)


SPEC = RendererExportSpec(
    name="toy",
    weights="toy.safetensors",
    load=lambda _path: TinyNetwork().eval().requires_grad_(False),
    inputs=lambda _network: FORMS,
    served=lambda network: network,
    extra_state=7,
)


@pytest.fixture
def job(tmp_path: Path) -> ExportJob:
    weights = tmp_path / "toy.safetensors"
    weights.write_bytes(b"weights")
    return ExportJob(weights=weights, folder=tmp_path / "out", training={"network": "toy_renderer", "config": {}})


def test_own_inputs_exported_by_name(job: ExportJob) -> None:
    path = export_network(SPEC, job)
    facts = json.loads((job.folder / "toy.export.json").read_text())
    assert facts["inputs"] == {
        "picture": ["uint8", ["batch", 320, 320, 3]],
        "speech_features": ["float32", ["batch", 5]],
        "reference": ["uint8", ["batch", 1, 320, 320, 3]],
        "actor_state": ["float32", ["batch", 4]],
    }
    assert facts["outputs"] == {OUTPUT_RESIDUAL: ["float32", ["batch", 320, 320, 3]]}
    assert facts["state_size"] == 11
    assert facts["training"] == {"network": "toy_renderer", "config": {}}
    assert [report["batch"] for report in facts["parity"]] == [1, 3]
    file = read_models(job.folder, Precision.FLOAT32)["toy"]
    assert file.box_multiple == 2
    assert file.inputs == FORMS
    given = {
        "picture": np.zeros((5, 320, 320, 3), np.uint8),
        "speech_features": np.zeros((5, 5), np.float32),
        "reference": np.zeros((5, 1, 320, 320, 3), np.uint8),
        "actor_state": np.zeros((5, 4), np.float32),
    }
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run([OUTPUT_RESIDUAL], given)[0].shape == (5, 320, 320, 3)


def test_refused_export_writes_nothing(job: ExportJob) -> None:
    """An export that computes something else, or whose calibration pictures do not fit, writes nothing."""
    with pytest.raises(ContractBrokenError, match="grey levels"):
        export_network(replace(SPEC, tolerance_levels=-1.0), job)
    assert not job.folder.exists()
    pictures = np.zeros((1, 160, 160, 9), np.uint8)
    with pytest.raises(InvalidRequestError, match="calibration pictures"):
        export_network(SPEC, ExportJob(weights=job.weights, folder=job.folder, calibration=pictures))
    assert not job.folder.exists()
