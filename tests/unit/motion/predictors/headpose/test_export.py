"""The export of a tiny network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.motion.models import MotionModels
from services.motion.predictors.headpose.export import export, spec_of
from services.motion.predictors.headpose.model import HeadposeModel
from services.motion.predictors.headpose.network import NUM_HEARD, HeadposeOutput
from services.motion.predictors.headpose.train.constants import headpose_constants
from tests.unit.motion.predictors.headpose.tiny import SMALL, network, tracked, zeros


@pytest.mark.filterwarnings("ignore")  # of the exporter, which warns of itself and of tracing
def test_what_is_exported_is_what_was_trained(models: MotionModels, tmp_path: Path) -> None:
    net = network()
    clips = [tracked(0), tracked(1)]

    @torch.no_grad()
    def raw(features: object) -> HeadposeOutput:
        answer: HeadposeOutput = net(torch.randn(1, 80 + SMALL.window - 1, 4, NUM_HEARD), zeros(), zeros())
        return answer

    kept = {
        "config": {"network": {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}},
        "state": net.state_dict(),
        "scores": {},
        "step": 1,
        "basis": HeadposeModel.of(models).basis,
        "face_model": "x",
        "num_expression": 64,
        "constants": headpose_constants(clips, models.basis, raw),
    }
    torch.save(kept, tmp_path / "best.pt")
    report = export({"run": tmp_path}, tmp_path / "out", replace(spec_of(SMALL), parity_runs=5))
    model = HeadposeModel(tmp_path / "out")
    assert report["parity"] < 1e-4
    assert (model.past, model.ahead, model.hidden) == (2, 1, 8)
    assert (model.general.quantiles[:, -1] > 0.0).all()
    with pytest.raises(RuntimeError, match="refused"):
        export({"run": tmp_path}, tmp_path / "none", replace(spec_of(SMALL), parity_runs=2, tolerance=-1.0))
    assert not (tmp_path / "none").exists()
