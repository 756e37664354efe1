"""Export the Audio ID-Removing Network: `python -m services.audio.export_id_removal --run build/audio/id_removal`.

Writes weights/id_removal.onnx and, beside it, id_removal.json: configuration, sha256 and the parity of both implementations. A
parity failure fails the export, and nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file

from services.audio.export import ExportSpec, ParityReport
from services.audio.identity import IDENTITY_WINDOW_ROWS
from services.audio.models import WEIGHTS
from services.audio.networks.id_removal import IdRemovalConfig, IdRemovalNetwork, ServedIdRemoval
from services.audio.types import NUM_CEPSTRA, FloatArray

MAX_BYTES: Final = 1_500_000
SPEC: Final = ExportSpec(outputs=("removed",), tolerance=5e-5)


def load_id_removal(run: Path) -> IdRemovalNetwork:
    """The network of a training run, in evaluation mode."""
    config = json.loads((run / "config.json").read_text())
    network = IdRemovalNetwork(IdRemovalConfig(**config["network"]))
    network.load_state_dict(load_file(run / "last.safetensors"))
    return network.eval()


def measure_parity(served: ServedIdRemoval, path: Path, spec: ExportSpec) -> ParityReport:
    """Compare PyTorch and ONNX Runtime, and ONNX Runtime with itself at other batch sizes, on random normalised cepstra."""
    random = np.random.default_rng(spec.seed)
    windows = random.standard_normal((spec.parity_windows, IDENTITY_WINDOW_ROWS, NUM_CEPSTRA)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: int) -> FloatArray:
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


def export(run: Path, out: Path, spec: ExportSpec = SPEC) -> ParityReport:
    """Write `out`/id_removal.onnx and id_removal.json.

    Raises:
        RuntimeError: the exported network differs from its source, or is larger than 1.5 MB.
    """
    served = ServedIdRemoval(load_id_removal(run)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "id_removal.onnx"
        torch.onnx.export(
            served,
            (torch.zeros(2, IDENTITY_WINDOW_ROWS, NUM_CEPSTRA),),
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
    (out / "id_removal.onnx").write_bytes(content)
    description = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "training": json.loads((run / "config.json").read_text()),
        "export": dataclasses.asdict(spec),
        "parity": dataclasses.asdict(report),
    }
    (out / "id_removal.json").write_text(json.dumps(description, indent=1) + "\n")
    return report


def main() -> int:
    """Command line; the exit code is 1 where the export is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder that gets id_removal.onnx and id_removal.json")
    arguments = parser.parse_args()
    try:
        report = export(arguments.run, arguments.out)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
