"""Exports the Audio-to-Expression network: `python -m services.motion.export_expression --run RUN`.

Writes audio_to_expression.onnx, expression_constants.safetensors and audio_to_expression.json (configuration, sha256, parity of
PyTorch and ONNX Runtime) to weights/. A parity failure fails the export, and nothing is written.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch

from services.motion.export_steps import admit, deliver, digests, run_command, write_constants, write_onnx
from services.motion.expression_model import CONSTANTS_FILE, MODEL_FILE
from services.motion.expression_window import EXPRESSION_WINDOW, NUM_HEARD
from services.motion.networks.audio_to_expression import AudioToExpressionConfig, AudioToExpressionNetwork
from services.motion.types import ROWS_PER_FRAME

MAX_BYTES: Final = 1_500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpressionExportSpec:
    """What the exported network looks like and how closely it must follow its source."""

    inputs: tuple[str, ...] = ("window",)
    outputs: tuple[str, ...] = ("expression",)
    shape: tuple[int, ...] = (1, EXPRESSION_WINDOW, ROWS_PER_FRAME, NUM_HEARD)
    tolerance: float = 1e-4
    """Largest absolute difference of a coefficient."""
    parity_windows: int = 32
    seed: int = 7


def measure_parity(network: AudioToExpressionNetwork, path: Path, spec: ExpressionExportSpec) -> float:
    """Largest difference between PyTorch and ONNX Runtime on random windows of the features' scale."""
    rng = np.random.default_rng(spec.seed)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for _ in range(spec.parity_windows):
        window = rng.standard_normal(spec.shape).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(window)).numpy()
        got = session.run(list(spec.outputs), {spec.inputs[0]: window})[0]
        largest = max(largest, float(np.abs(got - expected).max()))
    return largest


def export(run: Path, out: Path, spec: ExpressionExportSpec) -> dict[str, Any]:
    """Exports everything, or nothing; returns the report that the .json file holds.

    Raises:
        RuntimeError: the exported network differs from its source, or is larger than 1.5 MB.
    """
    kept = torch.load(run / "best.pt", weights_only=False)
    network = AudioToExpressionNetwork(AudioToExpressionConfig(**kept["config"]["network"]))
    network.load_state_dict(kept["state"])
    network.eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / MODEL_FILE
        write_onnx(network, (torch.zeros(spec.shape),), path, spec.inputs, spec.outputs)
        difference = measure_parity(network, path, spec)
        admit(path, difference, spec.tolerance, MAX_BYTES)
        metadata = write_constants(folder / CONSTANTS_FILE, path, kept, {"silence": kept["silence"]})
        report: dict[str, Any] = {
            **metadata,
            "training": {name: kept[name] for name in ("config", "step", "scores")},
            "parity": difference,
            "files": digests(folder),
            "spec": asdict(spec),
        }
        deliver(folder, report, "audio_to_expression.json", out)
    return report


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    runs = {"run": ("build/motion/expression", "folder of a training run")}
    return run_command(__doc__, runs, lambda run, out: export(run, out, ExpressionExportSpec()))


if __name__ == "__main__":
    sys.exit(main())
