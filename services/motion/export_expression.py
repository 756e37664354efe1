"""Exports the Audio-to-Expression network: `python -m services.motion.export_expression --run RUN`.

Writes audio_to_expression.onnx, expression_constants.safetensors and audio_to_expression.json (configuration, sha256, parity of
PyTorch and ONNX Runtime) to weights/. A parity failure fails the export, and nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from services.common.tensor_bytes import encode_arrays
from services.motion.expression_model import CONSTANTS_FILE, MODEL_FILE
from services.motion.expression_window import EXPRESSION_WINDOW, NUM_HEARD
from services.motion.models import WEIGHTS
from services.motion.networks.audio_to_expression import AudioToExpressionConfig, AudioToExpressionNetwork
from services.motion.types import ROWS_PER_FRAME

MAX_BYTES: Final = 1_500_000
_OPSET: Final = 17


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
    basis = kept["basis"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / MODEL_FILE
        torch.onnx.export(
            network,
            (torch.zeros(spec.shape),),
            str(path),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            opset_version=_OPSET,
            dynamo=False,  # one file, no external data
        )
        onnx.checker.check_model(str(path))
        difference, content = measure_parity(network, path, spec), path.read_bytes()
        if difference > spec.tolerance or len(content) > MAX_BYTES:
            raise RuntimeError(f"export refused: difference {difference:g}, {len(content)} bytes")
        digest = hashlib.sha256(content).hexdigest()
        arrays = {
            "components": basis.components,
            "dual": basis.dual,
            "typical_spread": basis.typical_spread,
            "silence": kept["silence"],
        }
        metadata = {"version": digest[:12], "face_model": kept["face_model"], "num_expression": str(kept["num_expression"])}
        (folder / CONSTANTS_FILE).write_bytes(encode_arrays(arrays, metadata))
        report: dict[str, Any] = {
            **metadata,
            "training": {"config": kept["config"], "step": kept["step"], "scores": kept["scores"]},
            "parity": difference,
            "files": {
                file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size_bytes": file.stat().st_size}
                for file in sorted(folder.iterdir())
            },
            "spec": asdict(spec),
        }
        (folder / "audio_to_expression.json").write_text(json.dumps(report, indent=1) + "\n")
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            shutil.copyfile(file, out / file.name)
    return report


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/motion/expression"), help="folder of a training run")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder that gets the model")
    arguments = parser.parse_args()
    try:
        report = export(arguments.run, arguments.out, ExpressionExportSpec())
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"version": report["version"], "parity": report["parity"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
