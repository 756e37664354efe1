"""Exports the predictor of `headpose`: `python -m services.motion.export_head_motion --run RUN`.

Writes audio_to_head_motion.onnx (one step of the LSTM a call, its state going in and out), head_motion_constants.safetensors and
audio_to_head_motion.json (configuration, sha256, parity of PyTorch and ONNX Runtime over a sequence) to weights/. A parity failure
fails the export, and nothing is written. Weights are kept as float16 and computed with as float32.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from services.motion.export_steps import admit, deliver, digests, run_command, write_constants, write_onnx
from services.motion.head_motion_model import CONSTANTS_FILE, MODEL_FILE
from services.motion.networks.audio_to_head_motion import NUM_HEARD, AudioToHeadMotionConfig, AudioToHeadMotionNetwork
from services.motion.types import ROWS_PER_FRAME

MAX_BYTES: Final = 700_000
_SMALL: Final = 256
"""Arrays with fewer numbers stay float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadMotionExportSpec:
    """What the exported network looks like and how closely it must follow its source."""

    inputs: tuple[str, ...] = ("window", "h", "c")
    outputs: tuple[str, ...] = ("expression", "pose", "next_h", "next_c")
    tolerance: float = 1e-4
    """Largest absolute difference of a number, over a whole sequence of steps."""
    parity_steps: int = 100
    seed: int = 7


def store_as_half(path: Path) -> None:
    """Rewrites large float32 initialisers as float16 with a cast behind them."""
    model = onnx.load(str(path))
    casts = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, str(path))


def measure_parity(network: AudioToHeadMotionNetwork, path: Path, spec: HeadMotionExportSpec) -> float:
    """Largest difference between PyTorch over a whole sequence and ONNX Runtime step by step, on random features."""
    config = network.config
    rng = np.random.default_rng(spec.seed)
    rows = rng.standard_normal((spec.parity_steps + config.window - 1, ROWS_PER_FRAME, NUM_HEARD)).astype(np.float32)
    zero = np.zeros((1, config.hidden), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows)[None], torch.from_numpy(zero), torch.from_numpy(zero))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    h, c, largest = zero, zero, 0.0
    for step in range(spec.parity_steps):
        window = rows[None, step : step + config.window]
        expression, pose, h, c = session.run(list(spec.outputs), {"window": window, "h": h, "c": c})
        for got, wanted in ((expression, expected.expression), (pose, expected.pose)):
            largest = max(largest, float(np.abs(got[0, 0] - wanted[0, step].numpy()).max()))
    return largest


def export(run: Path, out: Path, spec: HeadMotionExportSpec) -> dict[str, Any]:
    """Exports everything, or nothing; returns the report that the .json file holds.

    Raises:
        RuntimeError: the exported network differs from its source, or is larger than 700 kB.
    """
    kept = torch.load(run / "best.pt", weights_only=False)
    config = AudioToHeadMotionConfig(**kept["config"]["network"])
    network = AudioToHeadMotionNetwork(config)
    network.load_state_dict({name: _rounded(value) for name, value in kept["state"].items()})
    network.eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / MODEL_FILE
        zero = torch.zeros(1, config.hidden)
        example = (torch.zeros(1, config.window, ROWS_PER_FRAME, NUM_HEARD), zero, zero)
        write_onnx(network, example, path, spec.inputs, spec.outputs)
        store_as_half(path)
        onnx.checker.check_model(str(path))
        difference = measure_parity(network, path, spec)
        admit(path, difference, spec.tolerance, MAX_BYTES)
        facts = {"past": config.past, "ahead": config.ahead, "hidden": config.hidden}
        metadata = write_constants(folder / CONSTANTS_FILE, path, kept, kept["constants"], **facts)
        report: dict[str, Any] = {
            **metadata,
            "training": {name: kept[name] for name in ("config", "step", "scores")},
            "parity": difference,
            "files": digests(folder),
            "spec": asdict(spec),
        }
        deliver(folder, report, "audio_to_head_motion.json", out)
    return report


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Weights as float16 keeps them, where they are kept so."""
    return values.half().float() if values.numel() >= _SMALL else values


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    runs = {"run": ("build/motion/head_motion", "folder of a training run")}
    return run_command(__doc__, runs, lambda run, out: export(run, out, HeadMotionExportSpec()))


if __name__ == "__main__":
    sys.exit(main())
