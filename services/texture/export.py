"""Export the trained network: `python -m services.texture.export --run build/texture/temporal_warp`.

Writes weights/temporal_warp.onnx and, beside it, temporal_warp.json: configuration, sha256 and the parity of both
implementations. A parity failure ends the export before any file is written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from safetensors.torch import load_file

from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import NUM_CONTROL_POINTS, WINDOW
from services.common.store.exported_network import write_exported_network
from services.texture.models import MAX_WINDOWS, WEIGHTS, TemporalWarpModel
from services.texture.networks.temporal_warp import TemporalWarp, TemporalWarpConfig

MAX_BYTES: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """Form of the exported network, and how closely the export must follow its source."""

    inputs: tuple[str, ...] = ("wanted", "source")
    outputs: tuple[str, ...] = ("delta",)
    opset: int = 17
    tolerance_px: float = 1e-4
    parity_runs: int = 64
    seed: int = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """How closely the export follows its source, measured on random windows of face-like points."""

    largest_difference_px: float
    batch_invariant: bool
    """Whether a window gives the same bits alone and beside others."""


def load_network(run: Path) -> TemporalWarp:
    """Return the best network of a training run, in evaluation mode."""
    config = json.loads((run / "config.json").read_text())
    network = TemporalWarp(TemporalWarpConfig(**config["network"]))
    network.load_state_dict(load_file(run / "best.safetensors"))
    return network.eval()


def measure_parity(network: TemporalWarp, path: Path, spec: ExportSpec) -> ParityReport:
    """Compare the serving class with PyTorch, and a run of one window with a run of all."""
    random = np.random.default_rng(spec.seed)
    model = TemporalWarpModel(path)
    largest, invariant = 0.0, True
    for _ in range(spec.parity_runs):
        wanted = random.uniform(0, BOX_SIZE, (WINDOW, NUM_CONTROL_POINTS, 2)).astype(np.float32)
        source = (wanted + random.normal(0, 3, (MAX_WINDOWS, *wanted.shape))).astype(np.float32)
        served = model.residual(wanted, source)
        with torch.inference_mode():
            windows = torch.from_numpy(wanted).expand(MAX_WINDOWS, -1, -1, -1)
            expected = network(windows, torch.from_numpy(source)).numpy()
        largest = max(largest, float(np.abs(served - expected).max()))
        invariant = invariant and np.array_equal(model.residual(wanted, source[:1]), served[:1])
    return ParityReport(largest_difference_px=largest, batch_invariant=invariant)


def export(run: Path, out: Path, spec: ExportSpec) -> ParityReport:
    """Write the ONNX file `out` and a JSON file of the same name beside it.

    Raises:
        RuntimeError: the exported network differs from its source, or is larger than 4 MB.
    """
    network = load_network(run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / out.name
        example = torch.zeros(MAX_WINDOWS, WINDOW, NUM_CONTROL_POINTS, 2)
        torch.onnx.export(
            network,
            (example, example),
            str(path),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            opset_version=spec.opset,
            dynamo=False,
        )
        onnx.checker.check_model(str(path))
        report = measure_parity(network, path, spec)
        content = path.read_bytes()
    if report.largest_difference_px > spec.tolerance_px or not report.batch_invariant or len(content) > MAX_BYTES:
        raise RuntimeError(f"export refused: {report}, {len(content)} bytes")
    write_exported_network(out, content, run=run, spec=spec, parity=report)
    return report


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    print(export(arguments.run, arguments.out, ExportSpec()))


if __name__ == "__main__":
    main()
