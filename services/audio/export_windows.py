"""Export of a network of windows of cepstra to ONNX: write the file, compare it with its source, describe it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from services.audio.models import WEIGHTS
from services.common.array_types import Float32
from services.common.store.exported_network import write_exported_network


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """Form of an exported network, and how closely the export must follow its source."""

    inputs: tuple[str, ...] = ("cepstra",)
    outputs: tuple[str, ...] = ("probabilities",)
    opset: int = 17
    tolerance: float = 1e-5
    """Largest absolute difference of a number of the output."""
    parity_windows: int = 64
    batches: tuple[int, ...] = (1, 3, 8)
    """Batch sizes that must give the same bits as one run of all windows."""
    seed: int = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """How closely the exported network follows its source, measured on random windows.

    Attributes:
        largest_difference: largest absolute difference of a number of the output.
        batch_invariant: whether a window gives the same bits in every batch size of the spec.
    """

    largest_difference: float
    batch_invariant: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowNetwork:
    """One network that is exported.

    Attributes:
        name: name of the files in weights/, without the ending.
        served: returns the network to export, windows float32 [N, W, 20] -> [N, 4, C], from the folder of a training run.
        windows: returns random windows of the scale that the network hears, float32 [N, W, 20], from a generator and N.
        max_bytes: largest size of the ONNX file.
        spec: form and tolerance of the export.
    """

    name: str
    served: Callable[[Path], nn.Module]
    windows: Callable[[np.random.Generator, int], Float32]
    max_bytes: int
    spec: ExportSpec = ExportSpec()


def measure_parity(served: nn.Module, path: Path, windows: Float32, spec: ExportSpec) -> ParityReport:
    """Compare ONNX Runtime with PyTorch, and ONNX Runtime at the batch sizes of `spec` with one run of all windows."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: int) -> Float32:
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


def export(network: WindowNetwork, run: Path, out: Path) -> ParityReport:
    """Write `out`/<name>.onnx and <name>.json.

    Raises:
        RuntimeError: the exported network differs from its source, or the file is too large.
    """
    served, spec = network.served(run).eval(), network.spec
    windows = network.windows(np.random.default_rng(spec.seed), spec.parity_windows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{network.name}.onnx"
        torch.onnx.export(
            served,
            (torch.zeros(2, *windows.shape[1:]),),
            str(path),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_axes={name: {0: "windows"} for name in (*spec.inputs, *spec.outputs)},
            opset_version=spec.opset,
            dynamo=False,  # the newer exporter unrolls the recurrence
        )
        onnx.checker.check_model(str(path))
        report = measure_parity(served, path, windows, spec)
        content = path.read_bytes()
    if report.largest_difference > spec.tolerance or not report.batch_invariant or len(content) > network.max_bytes:
        raise RuntimeError(f"export refused: {report}, {len(content)} bytes")
    write_exported_network(out / f"{network.name}.onnx", content, run=run, spec=spec, parity=report)
    return report


def run_command(description: str | None, network: WindowNetwork) -> int:
    """Run the command line and return the exit code, 1 where the export is refused."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help=f"folder that gets {network.name}.onnx and {network.name}.json")
    arguments = parser.parse_args()
    try:
        report = export(network, arguments.run, arguments.out)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(report)))
    return 0
