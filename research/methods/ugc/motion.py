"""Training of `ugc`: the dominance prior, batches, style encoder, content encoder and decoder, and export.

The dominance prior tells what each phone does to the mouth over time. It is fitted in closed form, and the networks are trained on
top of the prior.

Coarticulation by dominance functions (Cohen and Massaro 1993): every phone pulls the mouth towards its target with a time course
that overlaps the neighbours' time courses. Here the time courses are free: a linear filter of nine frames per channel, from a
ridge regression over the training clips with balanced speakers. Unlike a network, the filter cannot learn a corpus by heart. The
network corrects the prior.

Batches have balanced speakers, and speech and motion are augmented together.

The best step is selected on held-out clips (other sentences, and speakers that were never trained on) by the correlation of opening
and lip width.

The export writes motion.onnx, style_encoder.onnx, and the basis and the mean speaker in the shared constants.

Runs of other predictors are measured in this basis. So they are trained again on the run (`dubstage train NETWORK --using
ugc_motion=RUN`), and exported into the folder after the run: their exports check the basis.
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

from research.motion.basis import basis_of
from research.motion.clips import (
    Clips,
    ContentAugmentation,
    Draw,
    TrainingClip,
    array_bytes,
    augmented,
    clip_chances,
    clips_of,
    frame_weights,
    rows_between,
    tensors,
)
from research.motion.export import PARITY_RUNS, TOLERANCE, MotionExportSpec, SharedExport, export_shared
from research.motion.losses import LandmarkLoss, LandmarkLossWeights
from research.motion.protocol import Scores, checked_groups, scores_by_group
from research.motion.ridge import Filter, RidgeSums
from research.motion.training import PredictorTraining, load_network, read_best
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import read_config
from research.training.training import LoopSettings, OptimiserSettings
from research.training.trainset import BoundedCache
from services.common.array_types import Array, Bool, Float32
from services.common.face.landmarks import mouth_opening
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT, bilabial_probability, content_before
from services.motion.predictors.ugc.network import StyleEncoder, UgcConfig, UgcNetwork
from services.motion.predictors.ugc.predictor import WINDOW, WINDOW_AHEAD, WINDOW_PAST, network_input
from services.motion.style import Style, StyleCode, measure_mouth
from services.motion.types import ROWS_PER_FRAME, SpeechFeatures

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
CODE_NOISE: Final = 0.1
"""Standard deviation of the noise on style codes in training."""
_CODE_CLIPS: Final = 200
"""Most clips that the mean speaker's style code is measured on."""
NAME = "ugc_motion"
"""Name of the network on the command line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """Settings of the prior."""

    width: int = 9
    """Frames that the filter spans. The last two lie ahead."""
    strength: float = 0.2
    """Strength of the ridge, in units of the mean variance of an input."""
    speaker_exponent: float = 0.45
    """A speaker with m frames counts m to this power."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Filter of all footage, and what holds in narrow corpora alone.

    Attributes:
        weight: float32 [K, 176, width] (channel = row * 44 + content channel).
        bias: float32 [K].
        apart: by narrow corpus, the filter to add, see RidgeSums.
    """

    weight: Float32
    bias: Float32
    apart: Mapping[str, Filter]
    config: PriorConfig

    def alone(self, clip: TrainingClip) -> Float32:
        """Return the coefficients of a clip that hold in its corpus alone, float32 [T, K]: 0 outside of narrow corpora."""
        own = self.apart.get(clip.apart)
        return np.zeros((len(clip), len(self.bias)), np.float32) if own is None else own(_rows(clip, self.config))


def fit_prior(clips: Clips, basis: LandmarkBasis, config: PriorConfig) -> Prior:
    """Fit the prior: ridge regression from content rows to coefficients in units of the person's spread. All clips are read."""
    channels = NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * config.width, len(basis.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        sums.add(_rows(clip, config)[clip.usable], _targets(clip, basis), float(weight), clip.apart)
    fitted = sums.solve(np.full(channels * config.width, config.strength * sums.input_variance()))
    filters = fitted.shared.weight.reshape(-1, config.width, channels).transpose(0, 2, 1)
    return Prior(np.ascontiguousarray(filters), fitted.shared.bias, fitted.apart, config)


def _rows(clip: TrainingClip, config: PriorConfig) -> Float32:
    """Return the neighbouring content of each frame: float32 [T, 176 * width]."""
    content = clip.content.reshape(len(clip), -1)
    past = config.width - 1 - WINDOW_AHEAD
    padded = np.pad(content, ((past, WINDOW_AHEAD), (0, 0)), mode="edge")
    return np.concatenate([padded[step : step + len(clip)] for step in range(config.width)], axis=1)


def _targets(clip: TrainingClip, basis: LandmarkBasis) -> Float32:
    mouths = clip.mouth_landmarks[clip.usable]
    mouth = measure_mouth(mouths, basis)
    return np.asarray(basis.project(mouths - mouth.rest_mouth) / mouth.spread, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcBatchConfig(ContentAugmentation):
    """Settings of drawing and augmenting windows."""

    batch_size: Annotated[int, Field(ge=1)] = 48
    speaker_exponent: float = 0.35
    """A speaker with m frames is drawn in proportion to m to this power: 1 draws frames equally, 0 draws speakers equally."""
    style_frames: Annotated[int, Field(ge=1)] = 60
    speed_range: tuple[float, float] = (0.85, 1.18)
    rest_jitter: float = 0.1
    """Noise of the rest mouth, in units of the spread."""


class UgcMotionBatch(NamedTuple, Generic[ArrayT]):
    """N windows of W frames, float32: arrays as they are drawn, tensors where the network learns.

    Attributes:
        content: [N, W, 4, 44].
        offsets: [N, W, 59, 3], offsets from the person's rest mouth, crop pixels.
        rest: [N, 59, 3], the rest mouth.
        valid: [N, W], 1 if the frame counts, otherwise 0.
        spread: [N, K].
        style: [N, S, K], another stretch of the same person, in units of the typical spread.
        closed: [N, W], 1 if a bilabial sounds and the true lips are shut, otherwise 0.
        closed_opening: [N], opening of the shut mouth.
        alone: [N, W, K], coefficients that hold in the clip's narrow corpus alone; the network answers the rest.
    """

    content: ArrayT
    offsets: ArrayT
    rest: ArrayT
    valid: ArrayT
    spread: ArrayT
    style: ArrayT
    closed: ArrayT
    closed_opening: ArrayT
    alone: ArrayT

    def on(self, device: torch.device) -> UgcMotionBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return UgcMotionBatch(*tensors(self, device))


@dataclass(frozen=True, slots=True)
class _Prepared:
    content: Float32
    offsets: Float32
    valid: Bool
    closed: Bool
    rest: Float32
    spread: Float32
    coefficients: Float32
    closed_opening: float
    alone: Float32


def _prepare(clip: TrainingClip, basis: LandmarkBasis, prior: Prior) -> _Prepared:
    """Prepare a clip. Rest mouth and spread are the clip's own, as in serving."""
    mouth = measure_mouth(clip.mouth_landmarks[clip.usable], basis)
    opening = mouth_opening(clip.mouth_landmarks)
    low, high = np.percentile(opening[clip.usable], [8, 90])
    bilabial = bilabial_probability(clip.features) > 0.5
    closed = bilabial & clip.usable & (opening < low + 0.2 * (high - low))
    pad = np.zeros(WINDOW, np.bool_)
    edge = content_before(WINDOW)
    offsets = clip.mouth_landmarks - mouth.rest_mouth
    hold = np.zeros((WINDOW, *offsets.shape[1:]), np.float32)
    coefficients = basis.project(offsets[clip.usable]) / basis.typical_spread
    return _Prepared(
        content=np.concatenate([edge, clip.content, edge]),
        offsets=np.concatenate([hold, offsets, hold]).astype(np.float32),
        valid=np.concatenate([pad, clip.usable, pad]),
        closed=np.concatenate([pad, closed, pad]),
        rest=mouth.rest_mouth,
        spread=mouth.spread,
        coefficients=coefficients.astype(np.float32),
        closed_opening=float(low),
        alone=np.pad(prior.alone(clip), ((WINDOW, WINDOW), (0, 0))),
    )


class UgcBatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        clips: training clips. They are read when they are drawn.
        basis: landmark basis of the style.
        prior: the prior that the network corrects.
    """

    def __init__(self, clips: Clips, basis: LandmarkBasis, prior: Prior, config: UgcBatchConfig) -> None:
        self._clips: BoundedCache[int, _Prepared] = BoundedCache(lambda index: _prepare(clips[index], basis, prior), array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._speaker_of = [row.speaker for row in clips.rows]
        self._indices_of: dict[str, list[int]] = {}
        for index, speaker in enumerate(self._speaker_of):
            self._indices_of.setdefault(speaker, []).append(index)
        self._config = config

    def draw(self, rng: np.random.Generator) -> UgcMotionBatch[Float32]:
        """Draw one batch."""
        rows = [self._window(rng) for _ in range(self._config.batch_size)]
        return UgcMotionBatch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _window(self, rng: np.random.Generator) -> tuple[Array, ...]:
        config = self._config
        index = self._draw(rng)
        clip = self._clips[index]
        speed = float(np.exp(rng.uniform(*np.log(config.speed_range))))
        length = len(clip.valid)
        start = rng.uniform(WINDOW // 3, length - WINDOW * 1.34 * max(speed, 1.0))
        frames = start + speed * np.arange(WINDOW)
        left, nearest = frames.astype(np.intp), np.round(frames).astype(np.intp)
        rows = clip.content.reshape(-1, clip.content.shape[-1])
        positions = start * ROWS_PER_FRAME + speed * np.arange(WINDOW * ROWS_PER_FRAME)
        content = augmented(rows_between(rows, positions), rows, config, rng)
        jitter = rng.normal(0.0, config.rest_jitter) * clip.offsets.std(axis=0)
        return (
            content.reshape(WINDOW, ROWS_PER_FRAME, -1),
            rows_between(clip.offsets, frames) - jitter,
            clip.rest + jitter,
            clip.valid[left] & clip.valid[left + 1],
            clip.spread,
            self._style(self._speaker_of[index], rng),
            clip.closed[nearest],
            np.asarray(clip.closed_opening, np.float32),
            rows_between(clip.alone, frames),
        )

    def _style(self, speaker: str, rng: np.random.Generator) -> Float32:
        """Draw frames of one random clip of the speaker; a short clip is repeated."""
        indices = self._indices_of[speaker]
        sequence = self._clips[indices[rng.integers(len(indices))]].coefficients
        begin = int(rng.integers(len(sequence)))
        index = (begin + np.arange(self._config.style_frames)) % len(sequence)
        return sequence[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips that basis and prior are fitted to.
    """

    network: UgcConfig = field(default_factory=UgcConfig)
    batches: UgcBatchConfig = field(default_factory=UgcBatchConfig)
    losses: LandmarkLossWeights = field(default_factory=LandmarkLossWeights)
    prior: PriorConfig = field(default_factory=PriorConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1200, check_every=200))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": UgcTrainingConfig(),
    # The sizes are those of AdaIN-VC (Chou et al. 2019): 128 channels, a style code of 128, a ConvBank of 128 channels each for the
    # widths 1 to 8.
    "large": UgcTrainingConfig(
        network=UgcConfig(channels=128, style_size=128, bank_channels=128, bank_widths=tuple(range(1, 9))),
        batches=UgcBatchConfig(batch_size=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}


class TorchUgc:
    """The network in PyTorch as protocol.Predict, all windows of a clip in one batch, and as style.StyleNetwork."""

    def __init__(self, network: UgcNetwork, basis: LandmarkBasis) -> None:
        self._network, self._basis = network, basis
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def encode(self, coefficients: Float32) -> StyleCode:
        """Encode coefficients, see style.StyleNetwork."""
        code = self._network.style.encode(torch.from_numpy(coefficients[None]).to(self._device))
        return StyleCode(code[0].cpu().numpy(), self._network.style.modulate(code)[0].cpu().numpy())

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = torch.from_numpy(network_input(features)).to(self._device).unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        modulation = torch.tensor(style.modulation, device=self._device)[None].expand(len(windows), -1, -1, -1)
        coefficients = self._network(windows, modulation)
        offsets = self._basis.reconstruct(coefficients[:, WINDOW_PAST].cpu().numpy() * style.spread)
        return np.asarray(style.rest_mouth + offsets, dtype=np.float32)


def typical_code(predictor: TorchUgc, clips: Clips, basis: LandmarkBasis) -> Float32:
    """Return the mean style code of the training speakers, float32 [S]: of each speaker, the mean over at most five clips."""
    codes = []
    for group in clips.by_speaker().values():
        own = []
        for clip in group[:5]:
            mouths = clip.mouth_landmarks[clip.usable]
            coefficients = basis.project(mouths - measure_mouth(mouths, basis).rest_mouth) / basis.typical_spread
            own.append(predictor.encode(coefficients.astype(np.float32)).code)
        codes.append(np.mean(own, axis=0))
    return np.asarray(np.mean(codes, axis=0), np.float32)


class UgcTraining(PredictorTraining[UgcMotionBatch[Float32]]):
    """Training of the style translation network (UGC paper, Sec. III-A)."""

    def __init__(self, opening: Opening) -> None:
        config: UgcTrainingConfig = opening.config
        clips = clips_of(opening.data, "train")
        self.groups = checked_groups(opening.data)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._code_clips = clips.chosen(_CODE_CLIPS, config.loop.seed)
        self._basis = basis_of(chosen, config.network.num_coefficients)
        self._loss = LandmarkLoss(self._basis, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network, prior = UgcNetwork(config.network), fit_prior(chosen, self._basis, config.prior)
        network.set_prior(torch.from_numpy(prior.weight), torch.from_numpy(prior.bias))
        super().__init__(config, opening.device, clips, network, UgcBatchSampler(clips, self._basis, prior, config.batches))

    def losses(self, batch: UgcMotionBatch[Float32]) -> dict[str, Tensor]:
        """Return the losses of LandmarkLoss."""
        network = self.module
        assert isinstance(network, UgcNetwork)
        here = batch.on(self.device.torch_device)
        code = network.style.encode(here.style)
        code = code + CODE_NOISE * torch.randn_like(code)
        coefficients = network(here.content, network.style.modulate(code))
        with self.device.autocast(bfloat16=False):
            return self._loss(coefficients.float(), here)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        predictor = self._predictor()
        return scores_by_group(self.groups, self._basis, predictor, predictor)

    def constants(self) -> Mapping[str, Float32]:
        """Return the landmark basis and the mean speaker's style code."""
        return {**self._basis.arrays(), "mean_code": typical_code(self._predictor(), self._code_clips, self._basis)}

    def _predictor(self) -> TorchUgc:
        assert isinstance(self.average, UgcNetwork)
        return TorchUgc(self.average, self._basis)


class _EmittedFrame(nn.Module):
    """The motion network of one window, cut to the predicted frame."""

    def __init__(self, network: UgcNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, modulation: Tensor) -> Tensor:
        coefficients: Tensor = self.network(content, modulation)
        return coefficients[:, WINDOW_PAST]


class _Encode(nn.Module):
    """The style encoder with code and modulation as outputs."""

    def __init__(self, encoder: StyleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder.encode(coefficients)
        return code, self.encoder.modulate(code)


def specs(config: UgcConfig) -> tuple[MotionExportSpec, MotionExportSpec]:
    """Return the descriptions of the style encoder and of the motion network."""
    limits: dict[str, Any] = {"tolerance": TOLERANCE, "parity_runs": PARITY_RUNS}
    modulation = (1, config.num_modulated, 2, config.channels)
    encoder = MotionExportSpec(
        name="style_encoder", inputs={"coefficients": (1, None, config.num_coefficients)}, outputs=("code", "modulation"), **limits
    )
    content = (1, WINDOW, ROWS_PER_FRAME, NUM_CONTENT)
    motion = MotionExportSpec(
        name="motion", inputs={"content": content, "modulation": modulation}, outputs=("coefficients",), **limits
    )
    return encoder, motion


def export(run: Path, out: Path) -> list[Path]:
    """Export both networks with their constants, or nothing. See research.motion.export.export_shared."""
    kept = read_best(run, NAME)
    config = TypeAdapter(UgcConfig).validate_python(read_config(run, NAME)["network"])
    network = UgcNetwork(config)
    load_network(network, kept)

    def arrays() -> Mapping[str, Array]:
        own = {name: values for name, values in kept.arrays.items() if not name.startswith("network.")}
        with torch.inference_mode():
            modulation = network.style.modulate(torch.tensor(own["mean_code"])[None])[0].numpy()
        return {**own, "mean_modulation": modulation}

    encoder, motion = specs(config)
    modules = ((_Encode(network.style), encoder), (_EmittedFrame(network), motion))
    given = SharedExport(name=NAME, card=motion.name, part="style_training", modules=modules, arrays=arrays)
    return export_shared(run, out, given)


NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech and a person's speaking style to mouth landmarks, and the landmark basis of the style",
    configs=CONFIGS,
    open=UgcTraining,
    export=export,
)
