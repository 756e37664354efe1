"""Training of `headpose` (headpose paper, Sec. 3.2): configurations, batches, losses, the trainable network, and export.

A batch has sequences of speech with their expression and head pose. The losses over usable frames are Eq. 2:

L = mean (beta - beta~)^2 + .2 mean (p - p~)^2 + .01 mean (p~(t+1) - p~(t))^2 + .0001 mean (beta~(t+1) - beta~(t))^2

Constants beside the network tell how the training speakers' heads and the signals of their speech move. Reports have correlations
of head poses: with the sound, and of predicted with true angles.

The closed-form filter is fitted first and is the baseline that the network must beat: at step 0 the network answers little more
than the filter. The best step is selected on held-out clips.

The export writes audio_to_head_motion.onnx, head_motion_constants.safetensors and the sheet audio_to_head_motion.json.

The exported network makes one step of the LSTM per call; the LSTM's state is an input and an output. Parity of PyTorch and ONNX
Runtime is measured over a sequence of steps.
Weights are stored as float16 and computed with as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import onnxruntime
import torch
from pydantic import Field
from torch import Tensor

from research.motion.basis import ExpressionSpace
from research.motion.clips import Clips, Draw, TrainingClip, array_bytes, clip_chances, clips_of, frame_weights, tensors
from research.motion.export import Delivery, MotionExportSpec, admit, open_run, write_onnx
from research.motion.protocol import NoStyleCode, Scores, checked_groups, pearson, scores_by_group, selection_score
from research.motion.ridge import RidgeFit, RidgeSums, distance_penalty
from research.motion.training import PredictorTraining, load_network
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import read_config
from research.training.training import LoopSettings, OptimiserSettings
from research.training.trainset import BoundedCache
from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.crops import POSE_SIZE
from services.motion.basis import LandmarkBasis
from services.motion.expression import expressed, expression_spread
from services.motion.features import NUM_CONTENT
from services.motion.head_motion import (
    KNOTS,
    LOUDNESS,
    NUM_DRIVES,
    NUM_LAGS,
    NUM_SIGNALS,
    RhythmConstants,
    SignalStream,
    relative_poses,
    symmetric_root,
)
from services.motion.head_network import HeadModel, cepstra, input_before, input_rows, network_input
from services.motion.predictors.headpose.network import INPUT_COLUMNS, HeadposeConfig, HeadposeNetwork, HeadposeOutput
from services.motion.style import Style, measure_mouth
from services.motion.types import NUM_PHONES, ROWS_PER_FRAME, SpeechFeatures

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
_SPREAD_CLIPS: Final = 32
"""Most clips of a speaker on which the spread of the speaker's poses is measured."""
LEAST_SPREAD: Final = 1e-6
"""Least spread, so that a head that never moves can be divided by it."""
SEED: Final = 3
_COMPONENTS: Final = 12
"""Number of principal components of the content, of which the drives are mixtures."""
_EXPONENT: Final = 0.4
_FREE_SPEECH_FRAMES: Final = 250
"""Clips of at least this length are free speech. Shorter clips are read sentences, whose speakers hold still."""
_CALM: Final = 0.15
"""Largest pace of the general speaker: the small quick nods of read sentences would look nervous at the spread of free speech."""
Poses = Callable[[SpeechFeatures], Float32]
"""The head poses that the trained network itself answers for a whole clip, float32 [T, 6]."""
POSE_AXES: Final = ("r_pitch", "r_yaw", "r_roll")
_RADIUS: Final = 0.5
BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""
POSE_SHARE: Final = 0.25
"""Weight of r of head poses in the number to select on; the mouth has the weight 1."""
NAME: Final = "headpose_motion"
"""Name of the network on the command line."""
_SMALL: Final = 256
"""Arrays with fewer numbers stay float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeLossWeights:
    """Weights of Eq. 2, as in the paper. The weight of the expression is 1."""

    pose: float = 0.2
    pose_step: float = 0.01
    expression_step: float = 0.0001


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes. An input other than cepstra, or a look-ahead other than 2, is an ablation, which is not exported.
        loop: length and pace.
        optimiser: rates.
        batch_size: sequences a batch.
        length: frames a sequence.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        filter_strength: strength of the filter's penalty, in units of the mean variance of an input.
        statistics_clips: most clips that the filter and the constants are measured on.
    """

    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    losses: HeadposeLossWeights = field(default_factory=HeadposeLossWeights)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, check_every=100, seed=1))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    batch_size: Annotated[int, Field(ge=1)] = 12
    length: Annotated[int, Field(ge=2)] = 150
    speaker_exponent: float = 0.4
    filter_strength: Annotated[float, Field(gt=0.0)] = 0.03
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": HeadposeTrainingConfig(),
    # The paper states no sizes; sizes of the audio encoder and the LSTM of ATVG's landmark network (Chen et al. 2019): 256.
    "large": HeadposeTrainingConfig(
        network=HeadposeConfig(projection=256, encoded=256, hidden=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, seed=1, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-4, warm_up_steps=1000, averaging=0.999),
        batch_size=64,
        statistics_clips=2000,
    ),
}


@dataclass(frozen=True, slots=True)
class HeadposeClip:
    """One clip, ready to be drawn from.

    Attributes:
        rows: float32 [T, 4, C], input of the network, see input_channels.
        expression: float32 [T, E], see research.motion.basis.ExpressionTarget.
        pose: float32 [T, 6], relative pose about the clip's mean, in units of the speaker's spread.
        usable: bool [T].
        apart: name of the narrow corpus that the clip belongs to; empty: none.
    """

    rows: Float32
    expression: Float32
    pose: Float32
    usable: Bool
    apart: str = ""


def clip_poses(clip: TrainingClip) -> Float64:
    """Return relative poses about the mean of the clip's usable frames, float64 [T, 6], see head_style.relative_poses."""
    reference = np.median(clip.poses[clip.usable], axis=0)
    relative = relative_poses(clip.poses, reference)
    return np.asarray(relative - relative[clip.usable].mean(axis=0))


def pose_spread(clips: Clips) -> Float64:
    """Return the standard deviation of one speaker's relative poses within a clip, float64 [6]; few clips are read."""
    poses = np.concatenate([clip_poses(clip)[clip.usable] for clip in clips.evenly(_SPREAD_CLIPS)])
    return np.asarray(np.maximum(np.sqrt((poses**2).mean(axis=0)), LEAST_SPREAD))


def input_channels(rows: Float32, config: HeadposeConfig) -> Float32:
    """Return the channels of rows that a network takes: [..., 65] (head_network.input_rows) -> [..., C]."""
    return rows[..., INPUT_COLUMNS[config.heard]]


def prepare(clip: TrainingClip, space: ExpressionSpace, spread: Float64, config: HeadposeConfig) -> HeadposeClip:
    """Prepare a clip with its targets.

    Args:
        space: bases of mouths and of expression.
        spread: float64 [6], see pose_spread.
        config: says which channels the network takes.
    """
    target = space.target(clip.mouth_landmarks, clip.usable)
    pose = np.clip(clip_poses(clip) / spread, -3.0, 3.0)
    rows = input_channels(input_rows(clip.features), config)
    return HeadposeClip(rows, target.coefficients, pose.astype(np.float32), clip.usable, clip.apart)


@dataclass(frozen=True, slots=True)
class HeadposeFilter:
    """Filters from windows to expression."""

    fitted: RidgeFit
    config: HeadposeConfig

    def without_its_corpus(self, clip: HeadposeClip) -> HeadposeClip:
        """Return a clip whose expression lacks what holds in the clip's narrow corpus alone, see RidgeSums."""
        alone = self.fitted.apart.get(clip.apart)
        if alone is None:
            return clip
        return replace(clip, expression=clip.expression - alone(_inputs(clip.rows, self.config)))


def fit_filter(clips: Clips, space: ExpressionSpace, config: HeadposeTrainingConfig) -> HeadposeFilter:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty. All clips are read.

    Args:
        space: bases of mouths and of expression.
        config: length of the window, exponent of the speakers' weights, strength of the penalty.

    Returns:
        Filters with weight float32 [E, W * 4 C] (frame by frame) and bias float32 [E].
    """
    sums = RidgeSums(config.network.channels * config.network.window, len(space.expression.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        target = space.target(clip.mouth_landmarks, clip.usable)
        rows = input_channels(input_rows(clip.features), config.network)
        add_to(sums, rows, target.coefficients, clip.usable, float(weight), config.network, apart=clip.apart)
    return HeadposeFilter(solved(sums, config.filter_strength, config.network), config.network)


def add_to(
    sums: RidgeSums, rows: Float32, expression: Float32, usable: Bool, weight: float, config: HeadposeConfig, *, apart: str = ""
) -> None:
    """Add the usable frames of a clip to the sums of a regression from windows to expression."""
    sums.add(_inputs(rows, config)[usable], expression[usable], weight, apart)


def _inputs(rows: Float32, config: HeadposeConfig) -> Float32:
    """Return the window of each frame of rows [T, 4, C] in a row: float32 [T, W * 4 C]."""
    padded = np.pad(rows, ((config.past, config.ahead), (0, 0), (0, 0)), mode="edge")
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, config.window, axis=0), -1, 1)
    return windows.reshape(len(windows), -1)


def solved(sums: RidgeSums, strength: float, config: HeadposeConfig) -> RidgeFit:
    """Return the filters of the sums.

    Args:
        sums: sums of a regression from windows.
        strength: strength of the penalty, in units of the mean variance of an input.
        config: tells how long the window is.
    """
    penalty = distance_penalty(config.window, config.past, strength * sums.input_variance())
    return sums.solve(np.repeat(penalty, config.channels))


class HeadposeBatch(NamedTuple, Generic[ArrayT]):
    """N sequences of T frames: window [N, T + W - 1, 4, C], expression [N, T, E], pose [N, T, 6], usable [N, T], 0 or 1."""

    window: ArrayT
    expression: ArrayT
    pose: ArrayT
    usable: ArrayT

    def on(self, device: torch.device) -> HeadposeBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return HeadposeBatch(*tensors(self, device))


class HeadposeSampler:
    """Sampler of sequences of clips, one clip after the other.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        linear: filters, of which the network corrects the shared one.
    """

    def __init__(self, clips: Clips, space: ExpressionSpace, linear: HeadposeFilter, config: HeadposeTrainingConfig) -> None:
        groups = clips.by_speaker()

        def spread_of(speaker: str) -> Float64:
            return pose_spread(groups[speaker])

        def prepared(index: int) -> HeadposeClip:
            return linear.without_its_corpus(prepare(clips[index], space, spreads[clips.rows[index].speaker], config.network))

        spreads = BoundedCache(spread_of, array_bytes)
        self._clips = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> HeadposeBatch[Float32]:
        """Draw a batch."""
        sequences = [self._sequence(rng, self._config.length) for _ in range(self._config.batch_size)]
        return HeadposeBatch(*(np.stack(parts) for parts in zip(*sequences, strict=True)))

    def _sequence(self, rng: np.random.Generator, length: int) -> tuple[Float32, Float32, Float32, Float32]:
        config = self._config.network
        total = length + config.ahead
        rows: list[Float32] = []
        expression: list[Float32] = []
        pose: list[Float32] = []
        usable: list[Float32] = []
        held = 0
        while held < total:
            clip = self._clips[self._draw(rng)]
            begin = int(rng.integers(0, max(1, len(clip.rows) - total + 1)))
            part = slice(begin, begin + total - held)
            rows.append(clip.rows[part])
            expression.append(clip.expression[part])
            pose.append(clip.pose[part])
            usable.append(clip.usable[part].astype(np.float32))
            held += len(rows[-1])
        window = np.concatenate([input_channels(input_before(config.past), config), *rows])
        ends = [np.concatenate(parts)[:length] for parts in (expression, pose, usable)]
        assert ends[1].shape == (length, POSE_SIZE)
        return window, ends[0], ends[1], ends[2]


class HeadposeLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    pose: Tensor
    pose_step: Tensor
    expression_step: Tensor


def headpose_loss(expression: Tensor, pose: Tensor, batch: HeadposeBatch[Tensor], weights: HeadposeLossWeights) -> HeadposeLosses:
    """Return the loss of Eq. 2: squared errors, and squared changes of the prediction from frame to frame, over usable frames.

    Args:
        expression: [N, T, E], predicted expression in units of the person's spread.
        pose: [N, T, 6], predicted pose in units of the person's spread.
        batch: the truth.
        weights: weights of the parts.
    """
    one, both = batch.usable[..., None], (batch.usable[:, 1:] * batch.usable[:, :-1])[..., None]

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp(min=1.0)

    expression_error = mean((expression - batch.expression) ** 2, one)
    pose_error = mean((pose - batch.pose) ** 2, one)
    pose_step = mean(pose.diff(dim=1) ** 2, both)
    expression_step = mean(expression.diff(dim=1) ** 2, both)
    total = expression_error + weights.pose * pose_error + weights.pose_step * pose_step + weights.expression_step * expression_step
    return HeadposeLosses(total, expression_error, pose_error, pose_step, expression_step)


def headpose_constants(clips: Clips, mouth: LandmarkBasis, poses: Poses) -> dict[str, Float32]:
    """Return the arrays of the constants' file by name, see HeadModel and RhythmConstants.

    Args:
        mouth: landmark basis of the style, in which rest mouths are measured.
        poses: the trained network's own head poses over a whole clip.

    Raises:
        InvalidRequestError: nobody speaks in the clips.
    """
    rhythm = _rhythm(clips, poses)
    arrays = {
        "pose_mean": rhythm.pose_mean,
        "pose_scale": rhythm.pose_scale,
        "loudness": np.array([rhythm.loudness_mean, rhythm.loudness_scale]),
        "content_mean": rhythm.content_mean,
        "projection": rhythm.projection,
        "autocovariance": rhythm.autocovariance,
        "mean_motion": _mean_motion(clips, mouth),
        **_general_head(clips),
    }
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}


def _mean_motion(clips: Clips, mouth: LandmarkBasis) -> Float64:
    """Return the mean mouth less the rest mouth, with equal weights of speakers: float64 [59, 3]."""
    means = []
    for group in clips.by_speaker().values():
        measured = [measure_mouth(clip.mouth_landmarks[clip.usable], mouth) for clip in group]
        means.append(np.mean([each.mean_mouth - each.rest_mouth for each in measured], axis=0))
    return np.asarray(np.mean(means, axis=0), np.float64)


def _general_head(clips: Clips) -> dict[str, Float64]:
    """Measure spread, correlation and pace of the general speaker.

    Spread and pace are geometric means of two kinds of speakers, readers and free speakers; each kind is a mean over its
    speakers. The pace is limited.
    """
    logs: dict[bool, list[Float64]] = {}
    correlations: dict[bool, list[Float64]] = {}
    for group in clips.by_speaker().values():
        free = len(group[0]) >= _FREE_SPEECH_FRAMES
        poses = np.concatenate([clip_poses(clip)[clip.usable] for clip in group])
        changes = np.concatenate([np.abs(np.diff(clip_poses(clip), axis=0))[clip.usable[1:] & clip.usable[:-1]] for clip in group])
        spread = np.maximum(np.sqrt((poses**2).mean(axis=0)), LEAST_SPREAD)
        pace = np.maximum(np.sqrt(np.pi / 2.0) * changes.mean(axis=0) / spread, LEAST_SPREAD)
        logs.setdefault(free, []).append(np.log([spread, pace]))
        correlations.setdefault(free, []).append((poses / spread).T @ (poses / spread) / len(poses))
    spread, pace = np.exp(np.mean([np.mean(rows, axis=0) for rows in logs.values()], axis=0))
    correlation = np.mean([np.mean(rows, axis=0) for rows in correlations.values()], axis=0)
    correlation = 0.9 * correlation + 0.1 * np.eye(POSE_SIZE)
    quantiles, steps = spread[:, None] * KNOTS, np.minimum(pace, _CALM)
    return {"pose_quantiles": quantiles, "pose_mixing": symmetric_root(correlation), "pose_steps": steps}


def _rhythm(clips: Clips, poses: Poses) -> RhythmConstants:
    weights = frame_weights(clips.rows, _EXPONENT)
    speaking = np.concatenate([w * clip.features.speech_probability for w, clip in zip(weights, clips, strict=True)])
    if not speaking.sum() > 0.0:
        raise InvalidRequestError("nobody speaks in the clips of split 'train'; add clips with speech", field="data")
    speaking /= speaking.sum()
    content = np.concatenate([clip.content.astype(np.float64).mean(axis=1) for clip in clips])
    answers = [poses(clip.features) for clip in clips]
    pose = np.concatenate(answers).astype(np.float64)
    loudness = content[:, NUM_PHONES:].mean(axis=1)

    def moments(values: Float64) -> tuple[Float64, Float64]:
        mean = speaking @ values
        return mean, np.sqrt(speaking @ (values - mean) ** 2)

    pose_mean, pose_scale = moments(pose)
    loudness_mean, loudness_scale = moments(loudness)
    centre = speaking @ content
    covariance = ((content - centre) * speaking[:, None]).T @ (content - centre)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:_COMPONENTS]
    directions = (vectors[:, order] * np.sign(vectors[np.abs(vectors[:, order]).argmax(axis=0), order])) / np.sqrt(
        np.maximum(values[order], 1e-9)
    )
    mixture, _ = np.linalg.qr(np.random.default_rng(SEED).standard_normal((_COMPONENTS, NUM_DRIVES)))
    projection = (directions @ mixture).T
    assert projection.shape == (NUM_DRIVES, NUM_CONTENT)
    plain = RhythmConstants(
        pose_mean, pose_scale, float(loudness_mean), float(loudness_scale), centre, projection, np.zeros((NUM_LAGS, 1, 1))
    )
    lags, total = np.zeros((NUM_LAGS, NUM_SIGNALS, NUM_SIGNALS)), 0.0
    for clip, answer, weight in zip(clips, answers, weights, strict=True):
        speech = clip.features.speech_probability
        stream = SignalStream(plain)
        rows = np.stack([stream.push(p, c, float(s)) for p, c, s in zip(answer, clip.content, speech, strict=True)])
        for lag in range(min(NUM_LAGS, len(rows) - 1)):
            product = rows[lag:].T @ rows[: len(rows) - lag]
            # The sum is divided by the whole length: far lags of short clips count less, and the estimate stays positive.
            lags[lag] += weight * 0.5 * (product + product.T)
        # Signals are 0 where nobody speaks, so continuous speech is measured.
        total += weight * float(speech.sum())
    assert lags[0, LOUDNESS, LOUDNESS] > 0.0
    return RhythmConstants(pose_mean, pose_scale, float(loudness_mean), float(loudness_scale), centre, projection, lags / total)


def audio_pose_correlation(clip: TrainingClip) -> float:
    """Return the correlation of Appendix A: MFCC distances and pose distances of frames with near MFCC, |s - s'| <= .5 |s|.

    Without such frames the correlation is 0.
    """
    mfcc = cepstra(clip.features.mel).mean(axis=1)[clip.usable].astype(np.float64)
    angles = np.degrees(clip.poses[clip.usable, :3])
    sounds = np.linalg.norm(mfcc[:, None] - mfcc[None], axis=-1)
    turns = np.linalg.norm(angles[:, None] - angles[None], axis=-1)
    near = sounds <= _RADIUS * np.linalg.norm(mfcc, axis=-1)[:, None]
    np.fill_diagonal(near, val=False)
    return pearson(sounds[near], turns[near]) if near.any() else 0.0


def angle_correlation(poses: Float64, clip: TrainingClip, part: slice) -> dict[str, float]:
    """Return r of predicted and true pitch, yaw and roll, over the usable frames of a part of a clip.

    Args:
        poses: float64 [T, 6], predicted head poses of the whole clip.
        part: frames that count.
    """
    seen = clip.usable[part]
    return {name: pearson(poses[part, axis][seen], clip.poses[part, axis][seen]) for axis, name in enumerate(POSE_AXES)}


class TorchHeadpose:
    """The network in PyTorch over whole clips as protocol.Predict."""

    def __init__(self, network: HeadposeNetwork, space: ExpressionSpace) -> None:
        self._network, self._space = network, space
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def raw(self, features: SpeechFeatures) -> HeadposeOutput:
        """Return the network's own answer for a clip of T frames, on the CPU: [1, T, ...]."""
        config = self._network.config
        rows = np.ascontiguousarray(input_channels(network_input(features, config.past, config.ahead), config))
        zero = torch.zeros(1, config.hidden, device=self._device)
        answer = self._network(torch.from_numpy(rows)[None].to(self._device), zero, zero)
        return HeadposeOutput(*(value.cpu() for value in answer))

    def poses(self, features: SpeechFeatures) -> Float32:
        """Return the network's own head poses for a clip of T frames, float32 [T, 6], in units of the person's spread."""
        poses: Float32 = self.raw(features).pose[0].numpy()
        return poses

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        coefficients = self.raw(features).expression[0].numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(coefficients * spread, self._space.expression, style)


def pose_correlation(predictor: TorchHeadpose, clips: Iterable[TrainingClip]) -> dict[str, float]:
    """Return the mean r of predicted and true pitch, yaw and roll over clips."""
    correlations: dict[str, list[float]] = {name: [] for name in POSE_AXES}
    for clip in clips:
        predicted, truth = predictor.poses(clip.features), clip_poses(clip)
        for axis, name in enumerate(correlations):
            correlations[name].append(pearson(predicted[clip.usable, axis], truth[clip.usable, axis]))
    return {name: fmean(values) for name, values in correlations.items()}


def mean_pose_correlation(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean r of poses over axes and groups of clips, from scores that hold `pose_correlation`."""
    return fmean(score[axis] for score in scores.values() for axis in POSE_AXES)


class HeadposeTraining(PredictorTraining[HeadposeBatch[Float32]]):
    """Training of the LSTM from speech to expression and head pose."""

    def __init__(self, opening: Opening) -> None:
        config: HeadposeTrainingConfig = opening.config
        clips = clips_of(opening.data, "train")
        self._config = config
        self.groups = checked_groups(opening.data)
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        self._chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._arrays: dict[str, Array] = {}
        torch.manual_seed(config.loop.seed)
        network = HeadposeNetwork(config.network)
        linear = fit_filter(self._chosen, self._space, config)
        shared = linear.fitted.shared
        network.set_filter(torch.from_numpy(shared.weight), torch.from_numpy(shared.bias))
        super().__init__(config, opening.device, clips, network, HeadposeSampler(clips, self._space, linear, config))

    def losses(self, batch: HeadposeBatch[Float32]) -> dict[str, Tensor]:
        """Return the losses of Eq. 2."""
        here = batch.on(self.device.torch_device)
        zero = torch.zeros(len(here.usable), self._config.network.hidden, device=self.device.torch_device)
        predicted: HeadposeOutput = self.module(here.window, zero, zero)
        with self.device.autocast(bfloat16=False):
            return headpose_loss(predicted.expression.float(), predicted.pose.float(), here, self._config.losses)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network: mouths, and the correlation of head poses."""
        predictor = self._predictor()
        mouths = scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)
        return {name: scores | pose_correlation(predictor, self.groups[name]) for name, scores in mouths.items()}

    def selection_score(self, scores: Scores) -> float:
        """Return the number to select on: the mouth's, and a share of the poses' correlation."""
        return selection_score(scores) + POSE_SHARE * mean_pose_correlation(scores)

    def constants(self) -> Mapping[str, Array]:
        """Return the expression basis, and in the end how the training speakers' heads and the signals of their speech move."""
        return {**self._space.expression.arrays(), **self._arrays}

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()

    def finish(self, folder: Path) -> None:
        """Measure the constants of the best network, and write the network anew with them."""
        self.take_best(folder)
        self._arrays = dict(headpose_constants(self._chosen, self._space.mouth, self._predictor().poses))
        self.write(folder)

    def _predictor(self) -> TorchHeadpose:
        assert isinstance(self.average, HeadposeNetwork)
        return TorchHeadpose(self.average, self._space)


def spec_of(config: HeadposeConfig) -> MotionExportSpec:
    """Return the description of a network."""
    state = (1, config.hidden)
    return MotionExportSpec(
        name=Path(HeadModel.network_file).stem,
        inputs={"window": (1, config.window, ROWS_PER_FRAME, config.num_inputs), "h": state, "c": state},
        outputs=("expression", "pose", "next_h", "next_c"),
        parity_runs=100,
    )


def store_as_half(path: Path) -> None:
    """Rewrite large float32 initialisers as float16, each with a cast behind the initialiser."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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


def measure_sequence(network: HeadposeNetwork, path: Path, spec: MotionExportSpec) -> float:
    """Return the largest difference between PyTorch over a whole sequence and ONNX Runtime step by step, on random rows."""
    config = network.config
    rng = np.random.default_rng(spec.seed)
    rows = rng.standard_normal((spec.parity_runs + config.window - 1, ROWS_PER_FRAME, config.num_inputs)).astype(np.float32)
    zero = np.zeros((1, config.hidden), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows)[None], torch.from_numpy(zero), torch.from_numpy(zero))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    h, c, largest = zero, zero, 0.0
    for step in range(spec.parity_runs):
        window = rows[None, step : step + config.window]
        expression, pose, h, c = session.run(list(spec.outputs), {"window": window, "h": h, "c": c})
        for answer, wanted in ((expression, expected.expression), (pose, expected.pose)):
            largest = max(largest, float(np.abs(answer[0, 0] - wanted[0, step].numpy()).max()))
    return largest


def export(run: Path, out: Path, spec: MotionExportSpec | None = None) -> list[Path]:
    """Export the network with its constants, or nothing.

    Args:
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        spec: description of the network. None: see spec_of.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequestError: the run is not finished or is an ablation, or the folder holds another landmark basis.
        ContractBrokenError: the exported network differs from its source.
    """
    import onnx

    sheet = Path(HeadModel.network_file).stem
    opened = open_run(run, out, name=NAME, constants_file=HeadModel.constants_file, sheet=sheet)
    config = HeadposeConfig(**read_config(run, NAME)["network"])
    served = HeadposeConfig()
    if (config.heard, config.ahead) != (served.heard, served.ahead):
        raise InvalidRequestError(
            f"{run} holds an ablation, which the stage cannot serve: train with network.heard = {served.heard!r} and "
            f"network.ahead = {served.ahead}",
            field="run",
        )
    spec = spec or spec_of(config)
    network = HeadposeNetwork(config)
    load_network(network, opened.kept)
    _round_as_stored(network)
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        store_as_half(path)
        onnx.checker.check_model(str(path))
        difference = measure_sequence(network, path, spec)
        admit(spec.name, difference, spec)
        measured = {"parity": difference, "spec": asdict(spec)}
        return opened.deliver(delivery, [path], measured, past=config.past, ahead=config.ahead, hidden=config.hidden)


@torch.no_grad()
def _round_as_stored(network: HeadposeNetwork) -> None:
    """Give the weights the rounding that storage as float16 gives them."""
    for values in network.parameters():
        if values.numel() >= _SMALL:
            values.copy_(values.half().float())


NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech to expression coefficients and head poses",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=HeadposeTraining,
    export=export,
)
