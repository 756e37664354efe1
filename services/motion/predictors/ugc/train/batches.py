"""Batches of windows for the network of `ugc`: speakers are balanced, speech and motion are augmented together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from services.common.array_types import Array, Bool, Float32
from services.common.face.landmarks import mouth_opening
from services.motion.basis import LandmarkBasis
from services.motion.features import bilabial_probability, content_before
from services.motion.predictors.ugc.inputs import WINDOW
from services.motion.predictors.ugc.train.prior import Prior
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips, TrainingClip, array_bytes
from services.motion.train.content_augmentation import ContentAugmentation, augmented
from services.motion.train.sampling import Draw, clip_chances, rows_between, tensors
from services.motion.types import ROWS_PER_FRAME
from services.training.trainset.reader import BoundedCache

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig(ContentAugmentation):
    """Settings of drawing and augmenting windows."""

    batch_size: Annotated[int, Field(ge=1)] = 48
    speaker_exponent: float = 0.35
    """A speaker with m frames is drawn in proportion to m to this power: 1 draws frames equally, 0 draws speakers equally."""
    style_frames: Annotated[int, Field(ge=1)] = 60
    speed_range: tuple[float, float] = (0.85, 1.18)
    rest_jitter: float = 0.1
    """Noise of the rest mouth, in units of the spread."""


class Batch(NamedTuple, Generic[ArrayT]):
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

    def on(self, device: torch.device) -> Batch[Tensor]:
        """Return the batch as tensors on a device."""
        return Batch(*tensors(self, device))


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


class BatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        clips: training clips. They are read when they are drawn.
        basis: landmark basis of the style.
        prior: the prior that the network corrects.
        config: settings.
    """

    def __init__(self, clips: Clips, basis: LandmarkBasis, prior: Prior, config: BatchConfig) -> None:
        self._clips: BoundedCache[int, _Prepared] = BoundedCache(lambda place: _prepare(clips[place], basis, prior), array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._speaker_of = [row.speaker for row in clips.rows]
        self._places: dict[str, list[int]] = {}
        for place, speaker in enumerate(self._speaker_of):
            self._places.setdefault(speaker, []).append(place)
        self._config = config

    def draw(self, rng: np.random.Generator) -> Batch[Float32]:
        """Draw one batch."""
        rows = [self._window(rng) for _ in range(self._config.batch_size)]
        return Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _window(self, rng: np.random.Generator) -> tuple[Array, ...]:
        config = self._config
        place = self._draw(rng)
        clip = self._clips[place]
        speed = float(np.exp(rng.uniform(*np.log(config.speed_range))))
        length = len(clip.valid)
        start = rng.uniform(WINDOW // 3, length - WINDOW * 1.34 * max(speed, 1.0))
        frames = start + speed * np.arange(WINDOW)
        left, nearest = frames.astype(np.intp), np.round(frames).astype(np.intp)
        rows = clip.content.reshape(-1, clip.content.shape[-1])
        heard = start * ROWS_PER_FRAME + speed * np.arange(WINDOW * ROWS_PER_FRAME)
        content = augmented(rows_between(rows, heard), rows, config, rng)
        jitter = rng.normal(0.0, config.rest_jitter) * clip.offsets.std(axis=0)
        return (
            content.reshape(WINDOW, ROWS_PER_FRAME, -1),
            rows_between(clip.offsets, frames) - jitter,
            clip.rest + jitter,
            clip.valid[left] & clip.valid[left + 1],
            clip.spread,
            self._style(self._speaker_of[place], rng),
            clip.closed[nearest],
            np.asarray(clip.closed_opening, np.float32),
            rows_between(clip.alone, frames),
        )

    def _style(self, speaker: str, rng: np.random.Generator) -> Float32:
        """Draw frames of one random clip of the speaker; a short clip is repeated."""
        places = self._places[speaker]
        sequence = self._clips[places[rng.integers(len(places))]].coefficients
        begin = int(rng.integers(len(sequence)))
        index = (begin + np.arange(self._config.style_frames)) % len(sequence)
        return sequence[index]
