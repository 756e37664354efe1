"""Training of `everyone`: configurations, batches, the closed-form filter, the trainable network, and export.

The closed-form filter is a ridge regression from the speech around a frame to the frame's expression.

A linear filter cannot learn a corpus by heart, and the network learns the rest. GRID and other narrow corpora have a filter of
their own beside the shared filter (research.motion.ridge), so the shared filter does not learn what holds there alone.

A batch has spans of speech with their mouths: speakers are balanced, speech and motion are augmented together.

The closed-form filter is fitted first: it is a part of what is served, and the baseline that the whole must beat. The best step is
selected on held-out clips.

The export writes everyone_motion.onnx, everyone_motion_constants.safetensors and the sheet everyone_motion.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from research.motion.basis import ExpressionSpace
from research.motion.clips import (
    Clips,
    ContentAugmentation,
    Draw,
    TrainingClip,
    array_bytes,
    augmented,
    clip_chances,
    clips_of,
    closed_frames,
    frame_weights,
    rows_between,
    tensors,
)
from research.motion.export import export_expression
from research.motion.losses import LandmarkLoss, LandmarkLossWeights
from research.motion.protocol import NoStyleCode, Scores, checked_groups, scores_by_group
from research.motion.ridge import RidgeFit, RidgeSums, fit_states_filter, range_of_states
from research.motion.training import PredictorTraining
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import read_config
from research.training.training import LoopSettings, OptimiserSettings
from research.training.trainset import BoundedCache
from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import InvalidRequestError
from services.motion.expression import expressed, expression_spread
from services.motion.features import NUM_CONTENT, content_before
from services.motion.predictors.everyone.network import (
    FILTER_AHEAD,
    FILTER_PAST,
    FILTER_ROWS,
    EveryoneConfig,
    EveryoneNetwork,
)
from services.motion.predictors.everyone.predictor import SERVED, WINDOW, EveryoneModel, input_frames, network_input, num_channels
from services.motion.speech_states import (
    STATES,
    STATES_AHEAD,
    STATES_PAST,
    SpeechInput,
    neighbours,
    silent_states,
    states_of,
)
from services.motion.style import Style, measure_mouth
from services.motion.types import ROWS_PER_FRAME, SpeechFeatures

_WINDOW: Final = FILTER_PAST + 1 + FILTER_AHEAD
ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
SPAN_FRAMES: Final = FILTER_PAST + WINDOW + FILTER_AHEAD
"""Frames of speech of a span: a window, and the frames around the window that the filter reads."""
MARGIN: Final = 2 * SPAN_FRAMES
"""Frames of silence around a clip, from which stretches may be drawn."""
BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""
NAME: Final = "everyone_motion"
"""Name of the network on the command line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Settings of the filter of content rows. They were chosen by leaving people of the web videos of the training out."""

    strength: Annotated[float, Field(gt=0.0)] = 0.03
    """Strength of the penalty at the predicted frame, in units of the mean variance of an input."""
    reach: Annotated[float, Field(gt=0.0)] = 2.5
    """Frames from the predicted frame to the frames at which the penalty is four times as strong."""
    speaker_exponent: float = 0.45
    """A speaker with m frames counts m to this power."""


def filter_inputs(clip: TrainingClip, speech_input: SpeechInput) -> Float32:
    """Return the filter's inputs for each frame of a clip in silence, float32 [T, I]."""
    if speech_input == "phones":
        return _content_inputs(clip.content)
    return neighbours(states_of(clip.features), STATES_PAST, STATES_AHEAD).reshape(len(clip), -1)


def _content_inputs(content: Float32) -> Float32:
    """Return content rows [T, 4, 44] of 11 frames, float32 [T, 11 * 88]. Two neighbouring rows count as one."""
    around = np.concatenate([content_before(FILTER_PAST), content, content_before(FILTER_AHEAD)])
    halves = around.reshape(len(around), FILTER_ROWS, ROWS_PER_FRAME // FILTER_ROWS, NUM_CONTENT).mean(axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(halves.reshape(len(around), -1), _WINDOW, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32).reshape(len(content), -1)


def fit_filter(clips: Clips, space: ExpressionSpace, config: FilterConfig, speech_input: SpeechInput) -> RidgeFit:
    """Fit the filter: of states if the network takes them, otherwise of content rows. All clips are read.

    Args:
        space: bases of mouths and of expression.
        config: settings of the filter of content rows. The filter of states has the settings of research.motion.ridge.
        speech_input: input of the network.

    Returns:
        Filters with weight float32 [E, I] and bias float32 [E].
    """
    num_expression = len(space.expression.typical_spread)

    def target(clip: TrainingClip) -> Float32:
        return space.target(clip.mouth_landmarks, clip.usable).coefficients

    if speech_input != "phones":
        return fit_states_filter(clips, target, num_expression, past=STATES_PAST, ahead=STATES_AHEAD)
    sums = RidgeSums(_WINDOW * FILTER_ROWS * NUM_CONTENT, num_expression)
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        inputs = filter_inputs(clip, speech_input)[clip.usable].astype(np.float64)
        sums.add(inputs, target(clip)[clip.usable], float(weight), clip.apart)
    return sums.solve(np.repeat(_penalty(config, sums.input_variance()), FILTER_ROWS * NUM_CONTENT))


def alone(clip: TrainingClip, fitted: RidgeFit, speech_input: SpeechInput) -> Float32:
    """Return the coefficients of a clip that hold in its corpus alone, float32 [T, E]: 0 outside of narrow corpora."""
    own = fitted.apart.get(clip.apart)
    return np.zeros((len(clip), len(fitted.shared.bias)), np.float32) if own is None else own(filter_inputs(clip, speech_input))


def _penalty(config: FilterConfig, variance: float) -> Float64:
    """Return the penalty of each frame, float64 [11]: the penalty grows with the distance from the predicted frame."""
    distance = np.arange(-FILTER_PAST, FILTER_AHEAD + 1) / config.reach
    return np.asarray(config.strength * variance * (1.0 + distance**2) ** 2)


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """One clip of T frames between M frames of silence on both sides. Rest mouth and spread are the clip's own, as in serving.

    Attributes:
        frames: T.
        content: float32 [M + T + M, 4, 44], content rows.
        states: float32 [M + T + M, 192], states of the speech encoder. Silence if the network does not take them.
        offsets: float32 [M + T + M, 59, 3], offsets from the rest mouth, crop pixels.
        movement: float32 [59, 3], standard deviation of the offsets.
        valid: bool [M + T + M], whether the frame shows the mouth.
        closed: bool [M + T + M], whether a bilabial sounds and the true lips are shut.
        rest: float32 [59, 3], the rest mouth.
        spread: float32 [E], size of each expression coefficient.
        closed_opening: opening of the shut mouth.
        alone: float32 [M + T + M, E], coefficients that hold in the clip's narrow corpus alone.
    """

    frames: int
    content: Float32
    states: Float32
    offsets: Float32
    movement: Float32
    valid: Bool
    closed: Bool
    rest: Float32
    spread: Float32
    closed_opening: float
    alone: Float32


def prepare(clip: TrainingClip, space: ExpressionSpace, fitted: RidgeFit, speech_input: SpeechInput, margin: int) -> PreparedClip:
    """Prepare a clip.

    Args:
        space: bases of mouths and of expression.
        fitted: filters, see filter.fit_filter.
        speech_input: input of the network.
        margin: M, frames of silence on both sides.
    """
    mouth = measure_mouth(clip.mouth_landmarks[clip.usable], space.mouth)
    closed, closed_opening = closed_frames(clip)
    edge = content_before(margin)
    states = silent_states(len(clip)) if speech_input == "phones" else states_of(clip.features)
    offsets = clip.mouth_landmarks - mouth.rest_mouth
    return PreparedClip(
        frames=len(clip),
        content=np.concatenate([edge, clip.content, edge]),
        states=np.pad(states, ((margin, margin), (0, 0))),
        offsets=np.pad(offsets, ((margin, margin), (0, 0), (0, 0))).astype(np.float32),
        movement=offsets.std(axis=0).astype(np.float32),
        valid=np.pad(clip.usable, margin),
        closed=np.pad(closed, margin),
        rest=mouth.rest_mouth,
        spread=expression_spread(mouth.spread, space.mouth, space.expression),
        closed_opening=closed_opening,
        alone=np.pad(alone(clip, fitted, speech_input), ((margin, margin), (0, 0))),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneBatchConfig(ContentAugmentation):
    """Settings of drawing and augmenting stretches."""

    batch_size: Annotated[int, Field(ge=1)] = 48
    speaker_exponent: float = 0.35
    """A speaker with m frames is drawn in proportion to m to this power: 1 draws frames equally, 0 draws speakers equally."""
    speed_range: tuple[float, float] = (0.85, 1.18)
    rest_jitter: float = 0.1
    """Noise of the rest mouth, in units of the movement of each point."""


class EveryoneBatch(NamedTuple, Generic[ArrayT]):
    """N stretches of W = 36 frames, float32: arrays as they are drawn, tensors where the network learns.

    Attributes:
        speech: [N, 46, H], input of the network: of the stretch, of 6 frames before and of 4 frames after the stretch.
        offsets: [N, W, 59, 3], offsets from the person's rest mouth, crop pixels.
        rest: [N, 59, 3], the rest mouth.
        valid: [N, W], 1 if the frame counts, otherwise 0.
        spread: [N, E], size of each expression coefficient of the person.
        closed: [N, W], 1 if a bilabial sounds and the true lips are shut, otherwise 0.
        closed_opening: [N], opening of the shut mouth.
        alone: [N, W, E], coefficients that hold in the clip's narrow corpus alone; the network answers the rest.
    """

    speech: ArrayT
    offsets: ArrayT
    rest: ArrayT
    valid: ArrayT
    spread: ArrayT
    closed: ArrayT
    closed_opening: ArrayT
    alone: ArrayT

    def on(self, device: torch.device) -> EveryoneBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return EveryoneBatch(*tensors(self, device))


class EveryoneBatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        fitted: filters, of which the network corrects the shared one.
        speech_input: input of the network.
    """

    def __init__(
        self, clips: Clips, space: ExpressionSpace, fitted: RidgeFit, config: EveryoneBatchConfig, speech_input: SpeechInput
    ) -> None:
        self._clips: BoundedCache[int, PreparedClip] = BoundedCache(
            lambda index: prepare(clips[index], space, fitted, speech_input, MARGIN), array_bytes
        )
        self._speech_input = speech_input
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> EveryoneBatch[Float32]:
        """Draw one batch."""
        rows = [self._span(rng) for _ in range(self._config.batch_size)]
        return EveryoneBatch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _span(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Draw a stretch that lies within the clip by half at least."""
        clip = self._clips[self._draw(rng)]
        speed = float(np.exp(rng.uniform(*np.log(self._config.speed_range))))
        last = clip.frames - 0.5 * WINDOW * speed
        start = MARGIN + rng.uniform(-0.5 * WINDOW, max(last, 1.0 - 0.5 * WINDOW))
        frames = start + speed * np.arange(WINDOW)
        left, nearest = frames.astype(np.intp), np.round(frames).astype(np.intp)
        rows = clip.content.reshape(-1, clip.content.shape[-1])
        positions = (start - speed * FILTER_PAST) * ROWS_PER_FRAME + speed * np.arange(SPAN_FRAMES * ROWS_PER_FRAME)
        content = augmented(rows_between(rows, positions), rows, self._config, rng).reshape(SPAN_FRAMES, ROWS_PER_FRAME, -1)
        states = rows_between(clip.states, start - speed * FILTER_PAST + speed * np.arange(SPAN_FRAMES))
        jitter = rng.normal(0.0, self._config.rest_jitter) * clip.movement
        return (
            input_frames(content, states, self._speech_input),
            rows_between(clip.offsets, frames) - jitter,
            clip.rest + jitter,
            clip.valid[left] & clip.valid[left + 1],
            clip.spread,
            clip.closed[nearest],
            np.asarray(clip.closed_opening, np.float32),
            rows_between(clip.alone, frames),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        filter: settings of the closed-form filter.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips that the filter is fitted to.
    """

    network: EveryoneConfig = field(default_factory=EveryoneConfig)
    batches: EveryoneBatchConfig = field(default_factory=EveryoneBatchConfig)
    losses: LandmarkLossWeights = field(default_factory=LandmarkLossWeights)
    filter: FilterConfig = field(default_factory=FilterConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=300, check_every=100))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": EveryoneTrainingConfig(),
    # Phone probabilities and energies in place of the speech encoder's states, for comparison. The stage cannot serve it.
    "phones": EveryoneTrainingConfig(
        network=EveryoneConfig(heard="phones", noise=0.0, dropout=0.3, share=0.8), loop=LoopSettings(steps=1200, check_every=400)
    ),
    # The paper states no sizes. Four layers of 256 channels are a small transformer for hours of talking heads.
    "large": EveryoneTrainingConfig(
        network=EveryoneConfig(
            channels=256, bank_channels=64, bank_widths=(1, 3, 5, 7, 9), conv_layers=6, attention_layers=4, heads=8
        ),
        batches=EveryoneBatchConfig(batch_size=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=5e-4, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}


class TorchEveryone:
    """A network of windows in PyTorch as protocol.Predict, all windows of a clip in one batch.

    Args:
        network: network from windows [N, 36, H] to the expression of the window's frame [N, E].
        space: bases of mouths and of expression.
        speech_input: input of the network.
    """

    def __init__(self, network: nn.Module, space: ExpressionSpace, speech_input: SpeechInput) -> None:
        self._network, self._space, self._speech_input = network, space, speech_input
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = (
            torch.from_numpy(network_input(features, self._speech_input)).to(self._device).unfold(0, WINDOW, 1).permute(0, 2, 1)
        )
        coefficients = self._network(windows.contiguous()).cpu().numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(np.asarray(coefficients * spread, np.float32), self._space.expression, style)


class FilterAlone(nn.Module):
    """The closed-form part of a network as a network of windows."""

    def __init__(self, network: EveryoneNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        """Return EveryoneNetwork.filter_of."""
        return self.network.filter_of(window)


class EveryoneTraining(PredictorTraining[EveryoneBatch[Float32]]):
    """Training of the audio-to-expression network (the paper's Sec. 3.6)."""

    def __init__(self, opening: Opening) -> None:
        config: EveryoneTrainingConfig = opening.config
        speech_input = self._speech_input = config.network.heard
        extra = () if speech_input == "phones" else (STATES,)
        clips = clips_of(opening.data, "train", extra)
        self.groups = checked_groups(opening.data, extra)
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        self._loss = LandmarkLoss(self._space.expression, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network = EveryoneNetwork(config.network)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        fitted = fit_filter(chosen, self._space, config.filter, speech_input)
        network.set_filter(torch.from_numpy(fitted.shared.weight), torch.from_numpy(fitted.shared.bias))
        if speech_input != "phones":
            network.set_range(*map(torch.from_numpy, range_of_states(chosen)))
        sampler = EveryoneBatchSampler(clips, self._space, fitted, config.batches, speech_input)
        super().__init__(config, opening.device, clips, network, sampler)

    def losses(self, batch: EveryoneBatch[Float32]) -> dict[str, Tensor]:
        """Return the losses of LandmarkLoss, means over the branches. Each branch learns what the filter leaves by itself."""
        network = self.module
        assert isinstance(network, EveryoneNetwork)
        here = batch.on(self.device.torch_device)
        filtered = network.filtered(here.speech)
        answers = [filtered + branch for branch in network.branches_of(here.speech)]
        with self.device.autocast(bfloat16=False):
            parts = [self._loss(answer.float(), here)._asdict() for answer in answers]
        return {name: torch.stack([each[name] for each in parts]).mean() for name in parts[0]}

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        assert isinstance(self.average, EveryoneNetwork)
        return scores_by_group(
            self.groups, self._space.mouth, NoStyleCode(), TorchEveryone(self.average, self._space, self._speech_input)
        )

    def baseline(self) -> Scores:
        """Return the scores of the filter alone."""
        assert isinstance(self.average, EveryoneNetwork)
        predictor = TorchEveryone(FilterAlone(self.average), self._space, self._speech_input)
        return scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)

    def constants(self) -> Mapping[str, Float32]:
        """Return the expression basis."""
        return self._space.expression.arrays()

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()


def _network(sizes: Mapping[str, Any]) -> EveryoneNetwork:
    return EveryoneNetwork(TypeAdapter(EveryoneConfig).validate_python(sizes))


def export(run: Path, out: Path) -> list[Path]:
    """Export the network with its constants, or nothing. Arguments and errors: see export_expression.

    Raises:
        InvalidRequestError: the network of the run takes another input than the stage serves.
    """
    speech_input = read_config(run, NAME)["network"]["heard"]
    if speech_input != SERVED:
        raise InvalidRequestError(
            f"{run}: network.heard is {speech_input!r}, which the stage cannot serve; train with {SERVED!r}", field="run"
        )
    speech = (1, WINDOW, num_channels(SERVED))
    return export_expression(run, out, name=NAME, model=EveryoneModel, inputs={"speech": speech}, make=_network)


NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech to expression coefficients, with 400 ms of look-ahead",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=EveryoneTraining,
    export=export,
)
