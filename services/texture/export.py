"""Export of a training run of the temporal-warp network to ONNX, with a comparison of both implementations."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.common.errors import ContractBroken, InvalidRequest
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import NUM_CONTROL_POINTS, WINDOW
from services.common.store.exported_network import write_exported_network
from services.texture.models import MAX_WINDOWS, NETWORK_FILE, TemporalWarpModel
from services.texture.networks.temporal_warp import TemporalWarp, TemporalWarpConfig
from services.texture.train.temporal_warp import RUN_FILE
from services.training.run_folder import read_config


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
    """Return the best network of a training run, in evaluation mode.

    Raises:
        InvalidRequest: the folder holds no run of this network, or its weights are missing, damaged or of another size.
    """
    config = read_config(run, "temporal_warp")
    network = TemporalWarp(TemporalWarpConfig(**config["network"]))
    path = run / RUN_FILE
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise InvalidRequest(f"{path}: {problem}; train again", field="run") from problem
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


def export(run: Path, folder: Path, spec: ExportSpec = ExportSpec()) -> Sequence[Path]:
    """Write temporal_warp.onnx, its description and the card of the run into a folder; return the paths.

    Args:
        run: folder of a training run.
        folder: folder of weights, which the texture stage serves.
        spec: form of the file, and the tolerance.

    Raises:
        InvalidRequest: the folder holds no run of this network, or a damaged one.
        ContractBroken: the exported network differs from PyTorch by more than the tolerance. Nothing is written.
    """
    network = load_network(run)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / NETWORK_FILE
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
    if not report.largest_difference_px <= spec.tolerance_px or not report.batch_invariant:
        raise ContractBroken(
            f"{NETWORK_FILE} was not written: the exported network differs from PyTorch by {report.largest_difference_px:g} px (at "
            f"most {spec.tolerance_px:g}), or a window's answer depends on the windows beside it ({not report.batch_invariant})"
        )
    return write_exported_network(folder / NETWORK_FILE, content, run=run, weights=run / RUN_FILE, spec=spec, parity=report)
