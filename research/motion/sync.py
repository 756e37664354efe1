"""Sync network: embeddings of sound and mouth in one space, where matching pairs are close (SyncNet, Chung & Zisserman 2016).

The training contrasts shifts: in a span of one clip, the sound at the right lag must score above the sound at all other lags. The
lags that the training set states are taken out before. A check puts lags into clips, which the network must find again.

    sync rows [N, T, 4, 25]    -> AudioEncoder -> unit vectors [N, T, E]
    coefficients [N, T, K]     -> MouthEncoder -> unit vectors [N, T, E]

Each vector sees about nine frames, with its own frame in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from research.motion.basis import basis_of
from research.motion.clips import LENGTH_TOLERANCE, Clips, Draw, array_bytes, clip_chances, clips_of, length_of, tensors
from research.motion.training import MotionTraining
from research.training.networks import Opening
from research.training.training import Check, LoopSettings, OptimiserSettings
from research.training.trainset import BoundedCache
from services.common.array_types import Bool, Float32
from services.common.errors import InvalidRequestError
from services.motion.basis import LandmarkBasis
from services.motion.features import ARTICULATIONS, NUM_SYNC
from services.motion.lag import embeddings, similarities_at_lags, standardised
from services.motion.types import MAX_LAG, ROWS_PER_FRAME, SpeechFeatures

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
MAX_CHECKED: Final = 24
"""Most held-out clips in a check."""
PREFIX: Final = "sync_"
"""Prefix of the arrays of the sync network's basis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncConfig:
    """Sizes of the two encoders."""

    num_coefficients: int = 16
    channels: int = 48
    embedding: int = 24
    dropout: float = 0.15


class _Tower(nn.Module):
    def __init__(self, channels_in: int, config: SyncConfig) -> None:
        super().__init__()
        channels = config.channels
        self.enter = nn.Conv1d(channels_in, channels, 5, padding=2)
        self.middle = nn.Conv1d(channels, channels, 3, padding=1)
        self.last = nn.Conv1d(channels, channels, 3, padding=1)
        self.out = nn.Conv1d(channels, config.embedding, 1)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return unit vectors: [N, in, T] -> [N, T, E]."""
        x = functional.leaky_relu(self.enter(x), 0.1)
        x = self.dropout(x)
        x = x + functional.leaky_relu(self.middle(x), 0.1)
        x = x + functional.leaky_relu(self.last(x), 0.1)
        y: Tensor = self.out(self.dropout(x)).transpose(1, 2)
        return y * torch.rsqrt((y * y).sum(dim=-1, keepdim=True) + 1e-4)


class AudioEncoder(nn.Module):
    """Encoder of speech. Each clip's energy level is removed."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.tower = _Tower(NUM_SYNC * ROWS_PER_FRAME, config)

    def forward(self, content: Tensor) -> Tensor:
        """Return embeddings of sync rows: [N, T, 4, 25] -> [N, T, E]."""
        split = len(ARTICULATIONS)
        energy = content[..., split:]
        energy = energy - energy.mean(dim=(1, 2), keepdim=True)
        energy = 0.5 * energy * torch.rsqrt((energy * energy).mean(dim=(1, 2), keepdim=True) + 1.0)
        x = torch.cat([content[..., :split] * 2.0, energy], dim=-1)
        embedded: Tensor = self.tower(x.flatten(2).transpose(1, 2))
        return embedded


class MouthEncoder(nn.Module):
    """Encoder of mouth motion: coefficients and their change per frame."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.tower = _Tower(2 * config.num_coefficients, config)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Return embeddings of coefficients about the clip's mean in units of the clip's spread: [N, T, K] -> [N, T, E]."""
        x = coefficients.transpose(1, 2)
        change = functional.pad(x[..., 1:] - x[..., :-1], (1, 0))
        embedded: Tensor = self.tower(torch.cat([x, change], dim=1))
        return embedded


class SyncNetwork(nn.Module):
    """Both encoders and the temperature of the contrastive loss."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioEncoder(config)
        self.mouth = MouthEncoder(config)
        self.log_scale = nn.Parameter(torch.tensor(2.0))


def lag_scores(audio: Tensor, mouth: Tensor, usable: Tensor, max_lag: int) -> Tensor:
    """Return the mean cosine similarity at each lag, [N, 2 max_lag + 1]: sound of frame n + lag against the mouth of frame n.

    The mean at a lag covers the mouths whose sound lies inside the clip.
    """
    length = mouth.shape[1]
    scores = []
    for lag in range(-max_lag, max_lag + 1):
        begin, end = max(0, -lag), min(length, length - lag)
        pairs = (audio[:, begin + lag : end + lag] * mouth[:, begin:end]).sum(-1)
        weight = usable[:, begin:end]
        scores.append((pairs * weight).sum(1) / weight.sum(1).clamp(min=1.0))
    return torch.stack(scores, dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        loop: length and pace.
        optimiser: rates.
        batch_size: stretches a batch.
        frames: frames a stretch.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        noise: standard deviation of the noise on coefficients, in units of the spread.
        statistics_clips: most clips that the landmark basis is fitted to.
    """

    network: SyncConfig = field(default_factory=SyncConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1500, check_every=150))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=2e-3))
    batch_size: Annotated[int, Field(ge=1)] = 32
    frames: Annotated[int, Field(gt=MAX_LAG)] = 68
    speaker_exponent: float = 0.35
    noise: Annotated[float, Field(ge=0.0)] = 0.15
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": SyncTrainingConfig(),
    # Channels, embedding, batch and rate of the sync network of Wav2Lip (Prajwal et al. 2020), which is trained on LRS2.
    "large": SyncTrainingConfig(
        network=SyncConfig(channels=512, embedding=512),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-4, warm_up_steps=1000, averaging=0.999),
        batch_size=64,
        statistics_clips=2000,
    ),
}


class SyncBatch(NamedTuple, Generic[ArrayT]):
    """N stretches of T frames: network inputs [N, T, 4, 25], coefficients [N, T, K], usable [N, T] (0 or 1)."""

    content: ArrayT
    mouth: ArrayT
    usable: ArrayT

    def on(self, device: torch.device) -> SyncBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return SyncBatch(*tensors(self, device))


@dataclass(frozen=True, slots=True)
class _Prepared:
    content: Float32
    mouth: Float32
    usable: Float32


class SyncSampler:
    """Sampler of stretches of clips with balanced speakers."""

    def __init__(self, clips: Clips, basis: LandmarkBasis, config: SyncTrainingConfig) -> None:
        def prepared(index: int) -> _Prepared:
            clip = clips[index]
            mouth = standardised(clip.mouth_landmarks, clip.usable, basis)
            return _Prepared(clip.sync_inputs, mouth, clip.usable.astype(np.float32))

        self._config = config
        self._clips: BoundedCache[int, _Prepared] = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))

    def draw(self, rng: np.random.Generator) -> SyncBatch[Float32]:
        """Draw a batch."""
        contents, mouths, usables = zip(*(self._span(rng) for _ in range(self._config.batch_size)), strict=True)
        return SyncBatch(np.stack(contents), np.stack(mouths), np.stack(usables))

    def _span(self, rng: np.random.Generator) -> tuple[Float32, Float32, Float32]:
        clip = self._clips[self._draw(rng)]
        begin = int(rng.integers(len(clip.usable) - self._config.frames + 1))
        part = slice(begin, begin + self._config.frames)
        content = clip.content[part].copy()
        split = len(ARTICULATIONS)
        content[..., split:] += rng.normal(0.0, 0.7, content.shape[-1] - split)
        sharp = np.maximum(content[..., :split], 1e-4) ** rng.uniform(0.7, 1.5)
        content[..., :split] = sharp / sharp.sum(-1, keepdims=True)
        mouth = clip.mouth[part] * rng.uniform(0.8, 1.25)
        mouth = mouth + self._config.noise * rng.normal(size=mouth.shape)
        return content, mouth.astype(np.float32), clip.usable[part]


def long_enough(clips: Clips, frames: int, folder: Path) -> Clips:
    """Return the clips that hold a stretch of so many frames.

    Args:
        frames: frames of a span.
        folder: folder of the training set, for the message.

    Raises:
        InvalidRequestError: there is no such clip.
    """
    rows = [row for row in clips.rows if length_of(row) >= frames]
    if not rows:
        raise InvalidRequestError(
            f"{folder}: no clip of split 'train' has {frames + LENGTH_TOLERANCE} frames ({(frames + LENGTH_TOLERANCE) / 25:.1f} s) "
            "without its lag; add longer clips, or lower the setting `frames`",
            field="data",
        )
    return clips.only(rows)


class TorchSync:
    """The network in PyTorch as a services.motion.lag.SyncModel."""

    def __init__(self, network: SyncNetwork) -> None:
        self._network = network
        self._device = network.log_scale.device

    @torch.no_grad()
    def embed_audio(self, rows: Float32) -> Float32:
        """Embed, see services.motion.lag.SyncModel."""
        embedded: Float32 = self._network.audio(torch.from_numpy(rows[None]).to(self._device))[0].cpu().numpy()
        return embedded

    @torch.no_grad()
    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Embed, see services.motion.lag.SyncModel."""
        embedded: Float32 = self._network.mouth(torch.from_numpy(coefficients[None]).to(self._device))[0].cpu().numpy()
        return embedded


@dataclass(frozen=True, slots=True)
class RecoveryRate:
    """Share of inserted shifts that are found within one frame, and the mean confidence of right and of foreign sound."""

    within_one: float
    confidence_own: float
    confidence_foreign: float


def recovery(clips: Clips, basis: LandmarkBasis, model: TorchSync) -> RecoveryRate:
    """Put shifts of +-1..6 frames into clips and find them again, relative to the lag in the untouched clip.

    The foreign sound of a clip is that of the next clip. If there is one clip alone, the foreign sound is its own.
    """

    def lag(features: SpeechFeatures, mouths: Float32, usable: Bool) -> tuple[int, float]:
        """Return the lag that fits best, and the height of its similarity over the median."""
        scores = similarities_at_lags(*embeddings(features, mouths, usable, basis, model), usable)
        best = int(scores.argmax())
        return best - MAX_LAG, float(scores[best] - np.median(scores))

    hits, own, foreign = [], [], []
    for index, clip in enumerate(clips):
        own_lag, confidence = lag(clip.features, clip.mouth_landmarks, clip.usable)
        own.append(confidence)
        other = clips[(index + 1) % len(clips)]
        # A shorter sound is repeated: the foreign stretch is as long as the clip, so that confidences can be compared.
        sound_of_other = other.features[np.arange(len(clip)) % len(other)]
        foreign.append(lag(sound_of_other, clip.mouth_landmarks, clip.usable)[1])
        for shift in (-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6):
            picture = slice(max(0, shift), len(clip) + min(0, shift))
            sound = slice(max(0, -shift), len(clip) + min(0, -shift))
            again, _ = lag(clip.features[sound], clip.mouth_landmarks[picture], clip.usable[picture])
            hits.append(abs(again - (own_lag + shift)) <= 1 and abs(own_lag) <= 3)
    return RecoveryRate(float(np.mean(hits)), float(np.mean(own)), float(np.mean(foreign)))


def contrastive_loss(audio: Tensor, mouth: Tensor, usable: Tensor, scale: Tensor) -> Tensor:
    """Return the cross entropy of lag 0 among all lags of a span, plus that of each frame's own sound among all sounds.

    Args:
        audio: [N, T, E], unit vectors of sound.
        mouth: [N, T, E], unit vectors of mouths.
        usable: [N, T], 1 if the frame counts, otherwise 0.
        scale: scalar, inverse temperature.
    """
    scores = lag_scores(audio, mouth, usable, MAX_LAG)
    target = torch.full((len(scores),), MAX_LAG, device=scores.device)
    whole = functional.cross_entropy(scores * scale * 4.0, target)
    pairs = torch.einsum("nte,nse->nts", mouth, audio) * scale
    # Neighbouring frames sound alike: their pairs count neither as right nor as wrong.
    steps = torch.arange(pairs.shape[1], device=pairs.device)
    near = ((steps[:, None] - steps[None]).abs() == 1).to(pairs.dtype)
    own = functional.cross_entropy((pairs - 1e4 * near).flatten(0, 1), steps.repeat(len(pairs)), reduction="none")
    frames = (own * usable.flatten()).sum() / usable.sum().clamp(min=1.0)
    return whole + 0.3 * frames


class SyncTraining(MotionTraining[SyncBatch[Float32]]):
    """Training of the sync network. The step with the best recovery of inserted shifts on held-out clips is kept."""

    def __init__(self, opening: Opening) -> None:
        config: SyncTrainingConfig = opening.config
        clips = long_enough(clips_of(opening.data, "train"), config.frames, opening.data.folder)
        self._basis = basis_of(clips.chosen(config.statistics_clips, config.loop.seed), config.network.num_coefficients)
        self._held_out = clips_of(opening.data, "val").evenly(MAX_CHECKED)
        torch.manual_seed(config.loop.seed)
        network = SyncNetwork(config.network)
        super().__init__(config, opening.device, clips, network, SyncSampler(clips, self._basis, config))

    def losses(self, batch: SyncBatch[Float32]) -> dict[str, Tensor]:
        """Return the contrastive loss."""
        network = self.module
        assert isinstance(network, SyncNetwork)
        here = batch.on(self.device.torch_device)
        audio, mouth = network.audio(here.content), network.mouth(here.mouth)
        with self.device.autocast(bfloat16=False):
            return {"total": contrastive_loss(audio.float(), mouth.float(), here.usable, network.log_scale.exp())}

    def check(self, step: int, folder: Path) -> Check:
        """Measure the recovery of shifts."""
        average = self.average
        assert isinstance(average, SyncNetwork)
        rate = recovery(self._held_out, self._basis, TorchSync(average))
        return Check(asdict(rate), rate.within_one + 0.1 * (rate.confidence_own - rate.confidence_foreign))

    def constants(self) -> Mapping[str, Float32]:
        """Return the landmark basis of the sync network."""
        return self._basis.arrays(PREFIX)
