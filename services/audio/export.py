"""Export the trained network: `python -m services.audio.export --run build/audio/ppg`.

Writes weights/ppg.onnx and, beside it, ppg.json: configuration, sha256 and the parity of both implementations. A parity failure
fails the export, and nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file

from services.audio.models import WEIGHTS
from services.audio.networks.ppg import PpgConfig, PpgNetwork, ServedPpg
from services.audio.types import NUM_CEPSTRA
from services.audio.windows import WINDOW_ROWS

MAX_BYTES: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """What the exported network looks like and how closely it must follow its source."""

    inputs: tuple[str, ...] = ("cepstra",)
    outputs: tuple[str, ...] = ("probabilities",)
    opset: int = 17
    tolerance: float = 1e-5
    """Largest absolute difference of a probability."""
    parity_windows: int = 64
    batches: tuple[int, ...] = (1, 3, 8)
    """Batch sizes that must give the same bits as one run of all windows."""
    seed: int = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """Measured on random windows of a speech-like scale."""

    largest_difference: float
    batch_invariant: bool


def load_network(run: Path) -> PpgNetwork:
    """The best network of a training run, in evaluation mode."""
    config = json.loads((run / "config.json").read_text())
    network = PpgNetwork(PpgConfig(**config["network"]))
    network.load_state_dict(load_file(run / "best.safetensors"))
    return network.eval()


def measure_parity(served: ServedPpg, path: Path, spec: ExportSpec) -> ParityReport:
    """Compare PyTorch and ONNX Runtime, and ONNX Runtime with itself at other batch sizes."""
    random = np.random.default_rng(spec.seed)
    windows = (random.standard_normal((spec.parity_windows, WINDOW_ROWS, NUM_CEPSTRA)) * 8.0).astype(np.float32)
    windows[..., 0] -= 35.0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: int) -> np.ndarray:
        parts = [
            session.run(list(spec.outputs), {spec.inputs[0]: windows[start : start + batch]})[0]
            for start in range(0, len(windows), batch)
        ]
        return np.concatenate(parts)

    whole = run(len(windows))
    with torch.inference_mode():
        expected = served(torch.from_numpy(windows)).numpy()
    return ParityReport(
        largest_difference=float(np.abs(whole - expected).max()),
        batch_invariant=all(np.array_equal(run(batch), whole) for batch in spec.batches),
    )


def export(run: Path, out: Path, spec: ExportSpec) -> ParityReport:
    """Write `out`/ppg.onnx and ppg.json.

    Raises:
        RuntimeError: the exported network differs from its source, or is larger than 4 MB.
    """
    served = ServedPpg(load_network(run)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ppg.onnx"
        torch.onnx.export(
            served,
            (torch.zeros(2, WINDOW_ROWS, NUM_CEPSTRA),),
            str(path),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_axes={name: {0: "windows"} for name in (*spec.inputs, *spec.outputs)},
            opset_version=spec.opset,
            dynamo=False,  # the newer exporter unrolls the recurrence
        )
        onnx.checker.check_model(str(path))
        report = measure_parity(served, path, spec)
        content = path.read_bytes()
    if report.largest_difference > spec.tolerance or not report.batch_invariant or len(content) > MAX_BYTES:
        raise RuntimeError(f"export refused: {report}, {len(content)} bytes")
    out.mkdir(parents=True, exist_ok=True)
    (out / "ppg.onnx").write_bytes(content)
    description = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "training": json.loads((run / "config.json").read_text()),
        "export": dataclasses.asdict(spec),
        "parity": dataclasses.asdict(report),
    }
    (out / "ppg.json").write_text(json.dumps(description, indent=1) + "\n")
    return report


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder that gets ppg.onnx and ppg.json")
    arguments = parser.parse_args()
    try:
        report = export(arguments.run, arguments.out, ExportSpec())
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
