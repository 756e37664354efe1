"""Batches of the training of the sync network: stretches of sound and mouth, and the settings of the training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.motion.basis import LandmarkBasis
from services.motion.features import ARTICULATIONS
from services.motion.lag import standardised
from services.motion.networks.sync import SyncConfig
from services.motion.train.clips import LENGTH_TOLERANCE, Clips, array_bytes, length_of
from services.motion.train.sampling import Draw, clip_chances, tensors
from services.motion.types import MAX_LAG
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings
from services.training.trainset.reader import BoundedCache

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)


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
        def prepared(place: int) -> _Prepared:
            clip = clips[place]
            mouth = standardised(clip.mouth_landmarks, clip.usable, basis)
            return _Prepared(clip.heard, mouth, clip.usable.astype(np.float32))

        self._config = config
        self._clips: BoundedCache[int, _Prepared] = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))

    def draw(self, rng: np.random.Generator) -> SyncBatch[Float32]:
        """Draw a batch."""
        contents, mouths, usables = zip(*(self._stretch(rng) for _ in range(self._config.batch_size)), strict=True)
        return SyncBatch(np.stack(contents), np.stack(mouths), np.stack(usables))

    def _stretch(self, rng: np.random.Generator) -> tuple[Float32, Float32, Float32]:
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
        clips: the clips.
        frames: frames of a stretch.
        folder: folder of the training set, for the message.

    Raises:
        InvalidRequest: there is no such clip.
    """
    rows = [row for row in clips.rows if length_of(row) >= frames]
    if not rows:
        raise InvalidRequest(
            f"{folder}: no clip of split 'train' has {frames + LENGTH_TOLERANCE} frames ({(frames + LENGTH_TOLERANCE) / 25:.1f} s) "
            "without its lag; add longer clips, or lower the setting `frames`",
            field="data",
        )
    return clips.only(rows)
