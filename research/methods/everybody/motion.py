"""Training of `everybody`: configurations, batches, losses, the trainable network, and export.

A batch has windows of ID-removed speech with their expression. The losses are

    L = L_exp + L_shape (Eq. 3) + w_velocity L_velocity

L_exp is the squared error of the coefficients. L_shape is the squared error of the mouth landmarks that the coefficients move.
L_velocity is the squared error of the landmarks' change from frame to frame (not in the paper).

The closed-form filter is fitted first: the filter is half of what is served, and the baseline that the whole must beat. The best
step is selected on held-out clips.

The export writes audio_to_expression.onnx, expression_constants.safetensors and the sheet audio_to_expression.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from research.motion.basis import ExpressionSpace, point_weights
from research.motion.clips import Clips, Draw, TrainingClip, array_bytes, clip_chances, clips_of, frame_weights, tensors
from research.motion.export import export_expression
from research.motion.protocol import NoStyleCode, Scores, checked_groups, scores_by_group
from research.motion.ridge import RidgeFit, RidgeSums, distance_penalty
from research.motion.training import PredictorTraining
from research.training.networks import Opening, TrainableNetwork
from research.training.training import LoopSettings, OptimiserSettings
from research.training.trainset import BoundedCache
from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.expression import expressed, expression_spread
from services.motion.predictors.everybody.network import EverybodyConfig, EverybodyNetwork
from services.motion.predictors.everybody.predictor import (
    FEATURE,
    NUM_CEPSTRA,
    NUM_INPUTS,
    WINDOW,
    WINDOW_PAST,
    EverybodyModel,
    network_input,
)
from services.motion.style import Style
from services.motion.types import ROWS_PER_FRAME, SpeechFeatures

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
_QUIET: Final = 0.02
"""Speech probability below which a frame is silent."""
CPU: Final = torch.device("cpu")
BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""
NAME: Final = "everybody_motion"
"""Name of the network on the command line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyLossWeights:
    """Weights of L_shape and of L_velocity. The weight of L_exp is 1."""

    shape: float = 1.0
    velocity: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        loop: length and pace.
        optimiser: rates.
        batch_size: pairs of neighbouring frames a batch.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        filter_strength: strength of the filter's penalty, in units of the mean variance of an input.
        noise: standard deviation of the noise on the network's inputs.
        level: standard deviation of noise on the inputs that is constant over a window.
        statistics_clips: most clips that filter and silence are measured on.
    """

    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    losses: EverybodyLossWeights = field(default_factory=EverybodyLossWeights)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1000, check_every=250, seed=1))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    batch_size: Annotated[int, Field(ge=1)] = 64
    speaker_exponent: float = 0.4
    filter_strength: Annotated[float, Field(gt=0.0)] = 0.01
    noise: Annotated[float, Field(ge=0.0)] = 0.2
    level: Annotated[float, Field(ge=0.0)] = 0.15
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": EverybodyTrainingConfig(),
    # Steps and rate of the paper (B, "Training Details"), which states no sizes; sizes of the audio encoder and the LSTM of ATVG's
    # landmark network (Chen et al. 2019): 256.
    "large": EverybodyTrainingConfig(
        network=EverybodyConfig(projection=256, hidden=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, seed=1, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-4, warm_up_steps=1000, averaging=0.999),
        batch_size=256,
        statistics_clips=2000,
    ),
}


@dataclass(frozen=True, slots=True)
class EverybodyClip:
    """One clip, ready to be drawn from.

    Attributes:
        rows: float32 [20 + T + 4, 4, 24], network inputs with the silence around the clip.
        expression: float32 [T, E], see research.motion.basis.ExpressionTarget.
        spread: float32 [E], the clip's own spread.
        usable: indices of the usable frames.
        apart: name of the narrow corpus that the clip belongs to; empty: none.
    """

    rows: Float32
    expression: Float32
    spread: Float32
    usable: npt.NDArray[np.intp]
    apart: str = ""


def silent_row(clips: Clips) -> Float32:
    """Return the mean ID-removed row of silent frames, float32 [20]: the silence around a clip.

    If there is no such frame, the quietest frame of each clip counts.
    """
    quiet, quietest = [], []
    for clip in clips:
        rows, speaking = clip.features.extra[FEATURE], clip.features.speech_probability
        quiet.append(rows[speaking < _QUIET].reshape(-1, NUM_CEPSTRA))
        quietest.append(rows[int(speaking.argmin())])
    chosen = quiet if any(len(rows) for rows in quiet) else quietest
    return np.asarray(np.concatenate(chosen).mean(axis=0), np.float32)


def prepare(clip: TrainingClip, space: ExpressionSpace, silence: Float32) -> EverybodyClip:
    """Prepare a clip with ID-removed cepstra.

    Args:
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
    """
    target, rows = space.target(clip.mouth_landmarks, clip.usable), network_input(clip.features, silence)
    return EverybodyClip(rows, target.coefficients, target.spread, np.flatnonzero(clip.usable), clip.apart)


def without_its_corpus(clip: EverybodyClip, fitted: RidgeFit) -> EverybodyClip:
    """Return a clip whose expression lacks what holds in the clip's narrow corpus alone, see RidgeSums."""
    alone = fitted.apart.get(clip.apart)
    return clip if alone is None else replace(clip, expression=clip.expression - alone(_inputs(windows_of(clip.rows))))


def fit_filter(clips: Clips, space: ExpressionSpace, silence: Float32, config: EverybodyTrainingConfig) -> RidgeFit:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty. All clips are read.

    Args:
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
        config: exponent of the speakers' weights, and strength of the penalty.

    Returns:
        Filters with weight float32 [E, 2400] and bias float32 [E].
    """
    sums = RidgeSums(WINDOW * ROWS_PER_FRAME * NUM_INPUTS, len(space.expression.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        add_to(sums, prepare(clip, space, silence), float(weight))
    return solved(sums, config.filter_strength)


def add_to(sums: RidgeSums, clip: EverybodyClip, weight: float) -> None:
    """Add the usable frames of a clip to the sums of a regression from windows to expression."""
    inputs = _inputs(windows_of(clip.rows)[clip.usable]).astype(np.float64)
    sums.add(inputs, clip.expression[clip.usable], weight, clip.apart)


def _inputs(windows: Float32) -> Float32:
    """Return windows [N, 25, 4, 24] in a row: float32 [N, 2400]."""
    return windows.reshape(len(windows), -1)


def solved(sums: RidgeSums, strength: float) -> RidgeFit:
    """Return the filters of the sums.

    Args:
        sums: sums of a regression from windows.
        strength: strength of the penalty, in units of the mean variance of an input.
    """
    penalty = distance_penalty(WINDOW, WINDOW_PAST, strength * sums.input_variance())
    return sums.solve(np.repeat(penalty, ROWS_PER_FRAME * NUM_INPUTS))


def windows_of(rows: Float32) -> Float32:
    """Return the windows of padded rows [20 + T + 4, 4, 24] as a view [T, 25, 4, 24]."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(rows, WINDOW, axis=0), -1, 1)


class EverybodyWindows(NamedTuple, Generic[ArrayT]):
    """N pairs of neighbouring frames: window float32 [N, 2, 25, 4, 24], expression [N, 2, E], spread [N, E]."""

    window: ArrayT
    expression: ArrayT
    spread: ArrayT

    def on(self, device: torch.device) -> EverybodyWindows[Tensor]:
        """Return the batch as tensors on a device."""
        return EverybodyWindows(*tensors(self, device))


class EverybodySampler:
    """Sampler of pairs of neighbouring frames with nearly balanced speakers and slightly disturbed features.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
        fitted: filters, of which the network corrects the shared one.
    """

    def __init__(
        self, clips: Clips, space: ExpressionSpace, silence: Float32, fitted: RidgeFit, config: EverybodyTrainingConfig
    ) -> None:
        def prepared(index: int) -> EverybodyClip:
            return without_its_corpus(prepare(clips[index], space, silence), fitted)

        self._clips = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> EverybodyWindows[Float32]:
        """Draw a batch."""
        windows: list[Float32] = []
        expressions: list[Float32] = []
        spreads: list[Float32] = []
        while len(windows) < self._config.batch_size:
            clip = self._clips[self._draw(rng)]
            frame = int(clip.usable[rng.integers(len(clip.usable))])
            if frame + 1 >= len(clip.expression):
                continue
            rows = clip.rows[frame : frame + WINDOW + 1].copy()
            rows += rng.normal(0.0, self._config.level, NUM_INPUTS).astype(np.float32)
            rows += rng.normal(0.0, self._config.noise, rows.shape).astype(np.float32)
            windows.append(np.stack([rows[:-1], rows[1:]]))
            expressions.append(clip.expression[frame : frame + 2])
            spreads.append(clip.spread)
        return EverybodyWindows(*(np.stack(part) for part in (windows, expressions, spreads)))


class EverybodyLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    shape: Tensor
    velocity: Tensor


class EverybodyLoss:
    """L_exp + L_shape (Eq. 3), and the squared error of the change from frame to frame.

    The paper's projection is a linear map here: head space is the face's own, so pose and identity drop out of the difference of
    landmarks. Lips count twice as much as the jaw.

    Args:
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, expression: LandmarkBasis, weights: EverybodyLossWeights, device: torch.device = CPU) -> None:
        root = np.sqrt(point_weights() / point_weights().mean())
        root[:, 2] = 0.0  # only the picture plane counts
        self._components = torch.tensor((expression.components * root).astype(np.float32), device=device)
        self._typical = float(np.linalg.norm(expression.components * expression.typical_spread[:, None, None]))
        self._weights = weights

    def __call__(self, predicted: Tensor, batch: EverybodyWindows[Tensor]) -> EverybodyLosses:
        """Return the loss of predicted coefficients [N, 2, E] in units of the person's spread."""
        error = predicted - batch.expression
        moved = torch.einsum("nfe,epd->nfpd", error * batch.spread[:, None], self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1)[:, None, None, None] * self._typical
        size = size / torch.linalg.vector_norm(batch.spread, dim=1).mean()
        relative = moved / size
        expression = (error**2).mean()
        shape = (relative**2).sum(dim=(2, 3)).mean()
        velocity = ((relative[:, 1] - relative[:, 0]) ** 2).sum(dim=(1, 2)).mean()
        total = expression + self._weights.shape * shape + self._weights.velocity * velocity
        return EverybodyLosses(total, expression, shape, velocity)


class TorchEverybody:
    """A network of windows in PyTorch as protocol.Predict."""

    def __init__(self, network: nn.Module, space: ExpressionSpace, silence: Float32) -> None:
        self._network, self._space, self._silence = network, space, silence
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = np.ascontiguousarray(windows_of(network_input(features, self._silence)))
        coefficients = self._network(torch.from_numpy(windows).to(self._device)).cpu().numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(coefficients * spread, self._space.expression, style)


def filter_alone(network: EverybodyNetwork) -> nn.Module:
    """Return the closed-form part of a network as a network of windows."""
    return nn.Sequential(nn.Flatten(1), network.filter)


class EverybodyTraining(PredictorTraining[EverybodyWindows[Float32]]):
    """Training of the Audio-to-Expression network (Everybody's Talkin', Sec. 3.2.2)."""

    def __init__(self, opening: Opening) -> None:
        config: EverybodyTrainingConfig = opening.config
        clips = clips_of(opening.data, "train", (FEATURE,))
        self.groups = checked_groups(opening.data, (FEATURE,))
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._silence = silent_row(chosen)
        self._loss = EverybodyLoss(self._space.expression, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network = EverybodyNetwork(config.network)
        fitted = fit_filter(chosen, self._space, self._silence, config)
        network.set_filter(torch.from_numpy(fitted.shared.weight), torch.from_numpy(fitted.shared.bias))
        sampler = EverybodySampler(clips, self._space, self._silence, fitted, config)
        super().__init__(config, opening.device, clips, network, sampler)

    def losses(self, batch: EverybodyWindows[Float32]) -> dict[str, Tensor]:
        """Return the losses of EverybodyLoss."""
        here = batch.on(self.device.torch_device)
        predicted = self.module(here.window.flatten(0, 1)).unflatten(0, (-1, 2))
        with self.device.autocast(bfloat16=False):
            return self._loss(predicted.float(), here)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        return self._scores_of(self.average)

    def baseline(self) -> Scores:
        """Return the scores of the filter alone."""
        assert isinstance(self.average, EverybodyNetwork)
        return self._scores_of(filter_alone(self.average))

    def constants(self) -> Mapping[str, Float32]:
        """Return the expression basis and the row of silence."""
        return {**self._space.expression.arrays(), "silence": self._silence}

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()

    def _scores_of(self, network: nn.Module) -> Scores:
        predictor = TorchEverybody(network, self._space, self._silence)
        return scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)


def export(run: Path, out: Path) -> list[Path]:
    """Export the network with its constants, or nothing. Arguments and errors: see export_expression."""
    window = (1, WINDOW, ROWS_PER_FRAME, NUM_INPUTS)
    return export_expression(
        run,
        out,
        name=NAME,
        model=EverybodyModel,
        inputs={"window": window},
        make=lambda sizes: EverybodyNetwork(EverybodyConfig(**sizes)),
    )


NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="ID-removed speech to expression coefficients",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=EverybodyTraining,
    export=export,
)
