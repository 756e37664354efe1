"""Temporal-warp network in PyTorch (Song et al., Sec. III-B.2 and Fig. 4): energies, training, and export to ONNX.

The network is trained alone and then frozen (Sec. III-C). The export compares PyTorch and ONNX Runtime.

Shapes: B windows, 6 frames t - 5 .. t, M = 86 control points, 2 = x, y in box pixels. Energies: N sequences, T frames, 11 x 11 grid
nodes 16 px apart over the render box.

The residual of the parameters (a, w) goes through the spline's own linear system: the network moves the right side v, and since
the solution is linear in v,

    (a, w) + residual = solve(system, v + delta) = solve(system, v) + solve(system, delta).

So every residual that keeps the side conditions P^T w = 0 is possible, and no other. Raw residuals of w, whose basis values reach
1e5, would need the paper's learning rate of 1e-6.

The energies on thin-plate splines are Eq. 5, 6, 8 and 9.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from research.texture.pairs import CHAIN, PairConfig, Pairs, PairSource
from research.training.network_files import write_exported_network
from research.training.networks import Opening
from research.training.run_folder import read_config
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import BORDER_POINTS, NUM_ANCHORS, NUM_CONTROL_POINTS, SMOOTHING, WINDOW
from services.common.files import write_whole
from services.texture.temporal_warp import MAX_WINDOWS, NETWORK_FILE, TemporalWarpModel

_MOVABLE = NUM_CONTROL_POINTS - len(BORDER_POINTS)
_DISPLACEMENT_SCALE = 4.0
_SHAPE_SCALE = BOX_SIZE / 4
STEP: Final = 16.0
_MEASURED: Final = NUM_MOUTH_AREA + NUM_ANCHORS
_SIDE: Final = BOX_SIZE // int(STEP) + 1
RUN_FILE: Final = "temporal_warp.safetensors"
"""File of the run with the weights of the best step."""
_HELD_OUT_BATCH: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalWarpConfig:
    """Size of the network."""

    hidden: int = 192


class TemporalWarp(nn.Module):
    """Moves of the source points from a window of target and retrieved control points.

    A linear part (a filter over time and points, the same for x and y) and a small perceptron over the mouth's shape. Both begin at
    zero, so the untrained network is the plain spline.
    """

    def __init__(self, config: TemporalWarpConfig) -> None:
        super().__init__()
        values = WINDOW * NUM_CONTROL_POINTS
        self.filter = nn.Linear(values, _MOVABLE, bias=False)
        self.perceptron = nn.Sequential(
            nn.Linear(4 * values, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, 2 * _MOVABLE),
        )
        nn.init.zeros_(self.filter.weight)
        last = self.perceptron[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Return delta [B, M, 2] of the window's last frame, box pixels; 0 at the border points.

        Args:
            target: float32 [B, 6, M, 2].
            source: float32 [B, 6, M, 2].
        """
        displacement = source - target
        filtered = self.filter(displacement.permute(0, 3, 1, 2).flatten(2))
        shape = (target - BOX_SIZE / 2) / _SHAPE_SCALE
        inputs = torch.cat([displacement / _DISPLACEMENT_SCALE, shape], dim=3).flatten(1)
        bent: Tensor = self.perceptron(inputs).unflatten(1, (_MOVABLE, 2))
        moved = filtered.transpose(1, 2) + bent
        return torch.cat([moved, torch.zeros_like(moved[:, : len(BORDER_POINTS)])], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyWeights:
    """Weights alpha_1, alpha_2, alpha_3 of Eq. 9.

    The paper uses 1 for each and does not state units. In pixels the terms are 0.8, 6e-5 and 1.3 at the start. With weights of 1
    the network damps the mouth's own motion (Et - 73 %, but Ef + 25 %) and bends freely. The weights here lower Et without raising
    Ef.
    """

    fitting: float = 1.0
    bending: float = 1000.0
    temporal: float = 0.1


@dataclass(frozen=True, slots=True)
class Energies:
    """Means of the energies over sequences and frames.

    Attributes:
        fitting: Ef, L1 distance between f(wanted) and the retrieved points, box pixels.
        bending: Eb, 1 / box pixel^2.
        temporal: Et, box pixels^2.
    """

    fitting: Tensor
    bending: Tensor
    temporal: Tensor

    def total(self, weights: EnergyWeights) -> Tensor:
        """Return L_tw of Eq. 9."""
        return weights.fitting * self.fitting + weights.bending * self.bending + weights.temporal * self.temporal


def spline_energies(target: Tensor, source: Tensor, moved: Tensor) -> Energies:
    """Return the energies of the splines f that map `target` to `moved`.

    Args:
        target: float64 [N, T, M, 2], centres, box pixels.
        source: float64 [N, T, M, 2], retrieved points, box pixels: targets of f at the mouth-area points and the anchors. Without
            the anchors the network would lower Ef and Et by moving nose and cheeks.
        moved: float64 [N, T, M, 2], values of f at the centres, box pixels: `source` plus the network's delta.
    """
    weights, affine = _solve(target, moved)
    at_points = _evaluate(target, weights, affine, target[..., :_MEASURED, :])
    fitting = (at_points - source[..., :_MEASURED, :]).abs().sum(-1).mean()
    axis = torch.arange(_SIDE, dtype=target.dtype, device=target.device) * STEP
    nodes = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    nodes = nodes.expand(*target.shape[:2], -1, -1)
    field = _evaluate(target, weights, affine, nodes).reshape(*target.shape[:2], _SIDE, _SIDE, 2)
    xx = field[:, :, 1:-1, 2:] - 2 * field[:, :, 1:-1, 1:-1] + field[:, :, 1:-1, :-2]
    yy = field[:, :, 2:, 1:-1] - 2 * field[:, :, 1:-1, 1:-1] + field[:, :, :-2, 1:-1]
    xy = (field[:, :, 2:, 2:] - field[:, :, 2:, :-2] - field[:, :, :-2, 2:] + field[:, :, :-2, :-2]) / 4
    bending = ((xx**2 + 2 * xy**2 + yy**2).sum(-1) / STEP**4).mean()
    temporal = ((field[:, 2:] - 2 * field[:, 1:-1] + field[:, :-2]) ** 2).sum(-1).mean()
    return Energies(fitting, bending, temporal)


def _solve(centres: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    count = centres.shape[-2]
    kernel = _radial(centres, centres) + torch.diag(torch.from_numpy(SMOOTHING).to(centres.device))
    side = torch.cat([torch.ones_like(centres[..., :1]), centres], dim=-1)
    system = torch.cat(
        [
            torch.cat([kernel, side], dim=-1),
            torch.cat([side.transpose(-1, -2), centres.new_zeros(*centres.shape[:-2], 3, 3)], dim=-1),
        ],
        dim=-2,
    )
    right = torch.cat([values, values.new_zeros(*values.shape[:-2], 3, 2)], dim=-2)
    solution = torch.linalg.solve(system, right)
    return solution[..., :count, :], solution[..., count:, :]


def _evaluate(centres: Tensor, weights: Tensor, affine: Tensor, points: Tensor) -> Tensor:
    return affine[..., :1, :] + points @ affine[..., 1:, :] + _radial(points, centres) @ weights


def _radial(points: Tensor, centres: Tensor) -> Tensor:
    across = points[..., :, None, 0] - centres[..., None, :, 0]
    down = points[..., :, None, 1] - centres[..., None, :, 1]
    squared = across**2 + down**2
    return 0.5 * squared * torch.log(squared.clamp(min=1e-12))


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalWarpTrainingConfig:
    """Configuration of a training.

    Attributes:
        loop: length and pace.
        optimiser: rates.
        network: size of the network.
        pairs: how pairs are drawn.
        batch: pairs of a batch.
        num_held_out: pairs of held-out clips that the best step is selected on.
    """

    loop: LoopSettings
    optimiser: OptimiserSettings
    network: TemporalWarpConfig = field(default_factory=TemporalWarpConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: EnergyWeights = field(default_factory=EnergyWeights)
    batch: int = 16
    num_held_out: int = 192


CONFIGS: Final = {
    "default": TemporalWarpTrainingConfig(
        loop=LoopSettings(steps=1000, seed=20240),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=0, last_share=0.5**6, weight_decay=1e-4),
    ),
    # Song et al. give no sizes. Width, batch and rate are those of the perceptron on landmarks of Martinez et al. 2017 (A simple
    # yet effective baseline for 3d human pose estimation, Sec. 3.2 and 3.3).
    "large": TemporalWarpTrainingConfig(
        loop=LoopSettings(steps=20_000, seed=20240, check_every=500, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, averaging=0.999),
        network=TemporalWarpConfig(hidden=1024),
        batch=64,
        num_held_out=512,
    ),
}


class TemporalWarpTraining(Supervised[Pairs]):
    """Training on pairs of sequences of one speaker: control points of a target sequence, and of a retrieved one.

    Args:
        opening: configuration of the type TemporalWarpTrainingConfig, training set, device. No other network is used.

    Raises:
        InvalidRequestError: the training set has no clips with a face in `train` or `val`, or the clips are too short.
    """

    def __init__(self, opening: Opening) -> None:
        config: TemporalWarpTrainingConfig = opening.config
        data, seed = opening.data, config.loop.seed
        self._config = config
        self._source = PairSource(data, data.of("train", face=True), config.pairs, seed)
        held_out = PairSource(data, data.of("val", face=True), config.pairs, seed + 1)
        self._held_out = held_out.pairs(config.num_held_out, 0, 0)
        torch.manual_seed(seed)
        super().__init__(config.loop, opening.device, self._source.clips, TemporalWarp(config.network), config.optimiser)

    def batch(self, step: int, index: int) -> Pairs:
        """Return pairs that are drawn for this batch. See PairSource."""
        return self._source.pairs(self._config.batch, step, index)

    def losses(self, batch: Pairs) -> dict[str, Tensor]:
        """Return Ef, Eb, Et and the weighted sum of Eq. 9."""
        return self._parts(self._energies(self.module, batch))

    def check(self, step: int, folder: Path) -> Check:
        """Return the energies of the averaged network on the held-out pairs. At step 0 they are those of the plain spline."""
        sums: dict[str, float] = {}
        count = len(self._held_out.target)
        with torch.inference_mode():
            for start in range(0, count, _HELD_OUT_BATCH):
                rows = slice(start, start + _HELD_OUT_BATCH)
                some = Pairs(self._held_out.target[rows], self._held_out.source[rows])
                for name, value in self._parts(self._energies(self.average, some)).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(some.target) / count
        return Check({f"held_out_{name}": value for name, value in sums.items()}, score=-sums["total"])

    def write(self, folder: Path) -> None:
        """Write the averaged network."""
        state = {name: value.cpu().contiguous() for name, value in self.average.state_dict().items()}
        write_whole(folder / RUN_FILE, save(state))

    def _energies(self, network: nn.Module, pairs: Pairs) -> Energies:
        device = self.device.torch_device
        return stream_energies(network, torch.from_numpy(pairs.target).to(device), torch.from_numpy(pairs.source).to(device))

    def _parts(self, energies: Energies) -> dict[str, Tensor]:
        return {
            "fitting": energies.fitting,
            "bending": energies.bending,
            "temporal": energies.temporal,
            "total": energies.total(self._config.loss),
        }


def stream_energies(network: nn.Module, target: Tensor, source: Tensor) -> Energies:
    """Return the energies of the 8 frames with a full window, as a stream answers these frames.

    Args:
        network: the temporal-warp network.
        target: float32 [N, 13, 86, 2], box pixels.
        source: float32 [N, 13, 86, 2], box pixels.
    """
    windows = torch.from_numpy(np.arange(CHAIN - WINDOW + 1)[:, None] + np.arange(WINDOW)).to(target.device)
    delta = network(target[:, windows].flatten(0, 1), source[:, windows].flatten(0, 1)).unflatten(0, (len(target), -1))
    last_target, last_source = target[:, WINDOW - 1 :].double(), source[:, WINDOW - 1 :].double()
    return spline_energies(last_target, last_source, last_source + delta.double())


@dataclass(frozen=True, kw_only=True, slots=True)
class WarpExportSpec:
    """Form of the exported network, and how closely the export must follow its source."""

    inputs: tuple[str, ...] = ("wanted", "source")
    outputs: tuple[str, ...] = ("delta",)
    opset: int = 17
    tolerance_px: float = 1e-4
    parity_runs: int = 64
    seed: int = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class WarpParityReport:
    """Differences of the export from its source, measured on random windows of face-like points."""

    largest_difference_px: float
    batch_invariant: bool
    """Whether a window gives the same bits alone and beside others."""


def load_network(run: Path) -> TemporalWarp:
    """Return the best network of a training run, in evaluation mode.

    Raises:
        InvalidRequestError: the folder holds no run of this network, or its weights are missing, damaged or of another size.
    """
    config = read_config(run, "temporal_warp")
    network = TemporalWarp(TemporalWarpConfig(**config["network"]))
    path = run / RUN_FILE
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise InvalidRequestError(f"{path}: {problem}; train again", field="run") from problem
    return network.eval()


def measure_parity(network: TemporalWarp, path: Path, spec: WarpExportSpec) -> WarpParityReport:
    """Compare the serving class with PyTorch, and a run of one window with a run of all."""
    random = np.random.default_rng(spec.seed)
    model = TemporalWarpModel(path)
    largest, invariant = 0.0, True
    for _ in range(spec.parity_runs):
        target = random.uniform(0, BOX_SIZE, (WINDOW, NUM_CONTROL_POINTS, 2)).astype(np.float32)
        source = (target + random.normal(0, 3, (MAX_WINDOWS, *target.shape))).astype(np.float32)
        served = model.residual(target, source)
        with torch.inference_mode():
            windows = torch.from_numpy(target).expand(MAX_WINDOWS, -1, -1, -1)
            expected = network(windows, torch.from_numpy(source)).numpy()
        largest = max(largest, float(np.abs(served - expected).max()))
        invariant = invariant and np.array_equal(model.residual(target, source[:1]), served[:1])
    return WarpParityReport(largest_difference_px=largest, batch_invariant=invariant)


def export(run: Path, folder: Path, spec: WarpExportSpec = WarpExportSpec()) -> Sequence[Path]:
    """Write temporal_warp.onnx, its description and the card of the run into a folder; return the paths.

    Args:
        folder: folder of weights, which the texture stage serves.
        spec: form of the file, and the tolerance.

    Raises:
        InvalidRequestError: the folder holds no run of this network, or a damaged one.
        ContractBrokenError: the exported network differs from PyTorch by more than the tolerance. Nothing is written.
    """
    import onnx

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
        raise ContractBrokenError(
            f"{NETWORK_FILE} was not written: the exported network differs from PyTorch by {report.largest_difference_px:g} px (at "
            f"most {spec.tolerance_px:g}), or a window's answer depends on the windows beside it ({not report.batch_invariant})"
        )
    return write_exported_network(folder / NETWORK_FILE, content, run=run, weights=run / RUN_FILE, spec=spec, parity=report)
