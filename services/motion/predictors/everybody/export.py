"""Export of `everybody`: audio_to_expression.onnx, expression_constants.safetensors and the report audio_to_expression.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from services.motion.export_spec import Delivery, ExportSpec, admit, measure_parity, write_constants, write_onnx
from services.motion.predictors.everybody.inputs import NUM_HEARD, WINDOW
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.network import EverybodyConfig, EverybodyNetwork
from services.motion.types import ROWS_PER_FRAME

RUNS: Final = {"run": "build/motion/expression"}
"""Default folder of the training run."""
SPEC: Final = ExportSpec(
    name=Path(EverybodyModel.network_file).stem,
    inputs={"window": (1, WINDOW, ROWS_PER_FRAME, NUM_HEARD)},
    outputs=("expression",),
    max_bytes=1_500_000,
    parity_runs=32,
)


def export(runs: Mapping[str, Path], out: Path, spec: ExportSpec = SPEC) -> dict[str, Any]:
    """Export the network with its constants, or nothing.

    Args:
        runs: folder of the training run `run`.
        out: folder that gets the files.
        spec: description of the network.

    Returns:
        The report.

    Raises:
        RuntimeError: the exported network differs from its source, or its file is too large.
    """
    kept = torch.load(runs["run"] / "best.pt", weights_only=False)
    network = EverybodyNetwork(EverybodyConfig(**kept["config"]["network"]))
    network.load_state_dict(kept["state"])
    network.eval()
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        difference = measure_parity(network, path, spec, spec.examples())
        admit(path, difference, spec)
        report = {
            **write_constants(delivery.folder / EverybodyModel.constants_file, path, kept, {"silence": kept["silence"]}),
            "training": {name: kept[name] for name in ("config", "step", "scores")},
            "parity": difference,
            "spec": asdict(spec),
        }
        return delivery.deliver(f"{spec.name}.json", report)
