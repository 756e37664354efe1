"""Networks of windows of cepstra: the file in which a training run keeps its network, and the export to ONNX with a comparison."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from research.training.network_files import write_exported_network
from services.common.array_types import Float32
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.files import write_whole

NETWORK_FILE: Final = "network.safetensors"


def save_network(module: nn.Module, run: Path) -> None:
    """Write the parameters and buffers of a module into the folder of a run. An interrupted call leaves the earlier file."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    # Not save_file, whose error of a full disk is no OSError.
    write_whole(run / NETWORK_FILE, save(state))


def load_network(module: nn.Module, run: Path) -> None:
    """Load what `save_network` wrote.

    Args:
        module: module of the sizes that the run's configuration names.

    Raises:
        InvalidRequestError: the file is missing or damaged, or holds a network of other sizes.
    """
    path = run / NETWORK_FILE
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as problem:
        first = str(problem).splitlines()[0]
        raise InvalidRequestError(
            f"{path} is not the network of this run: {first}; let the training reach a check", field="run"
        ) from problem


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioExportSpec:
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
class AudioParityReport:
    """Differences of the exported network from its source, measured on random windows.

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
        windows: returns random windows of the scale that the network gets, float32 [N, W, 20], from a generator and N.
        spec: form and tolerance of the export.
    """

    name: str
    served: Callable[[Path], nn.Module]
    windows: Callable[[np.random.Generator, int], Float32]
    spec: AudioExportSpec = AudioExportSpec()


def measure_parity(served: nn.Module, path: Path, windows: Float32, spec: AudioExportSpec) -> AudioParityReport:
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
    return AudioParityReport(
        largest_difference=float(np.abs(whole - expected).max()),
        batch_invariant=all(np.array_equal(run(batch), whole) for batch in spec.batches),
    )


def export_network(network: WindowNetwork, run: Path, folder: Path) -> Sequence[Path]:
    """Write the ONNX file of a run's network, its description and the run's card, and return their paths.

    Args:
        network: what to export.
        folder: folder of weights.

    Raises:
        InvalidRequestError: the folder of the run holds no network.
        ContractBrokenError: ONNX Runtime gives other numbers than PyTorch, or its bits depend on the size of a batch. Then nothing
            is written.
    """
    import onnx

    served, spec = network.served(run).eval(), network.spec
    windows = network.windows(np.random.default_rng(spec.seed), spec.parity_windows)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{network.name}.onnx"
        with warnings.catch_warnings():
            # The exporter warns that LSTMs may fail with other batches: the parity below is measured with other batches.
            warnings.simplefilter("ignore")
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
    if not report.largest_difference <= spec.tolerance or not report.batch_invariant:
        raise ContractBrokenError(
            f"{run}: export refused: ONNX Runtime differs from PyTorch by {report.largest_difference:.2g} (allowed: "
            f"{spec.tolerance:.2g}), and batches of other sizes give {'the same' if report.batch_invariant else 'other'} bits"
        )
    weights = run / NETWORK_FILE
    return write_exported_network(folder / f"{network.name}.onnx", content, run=run, weights=weights, spec=spec, parity=report)
