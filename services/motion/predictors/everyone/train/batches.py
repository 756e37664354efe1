"""Batches of stretches of speech with their mouths: speakers are balanced, speech and motion are augmented together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from services.common.array_types import Array, Float32
from services.motion.predictors.everyone.inputs import WINDOW, heard_frames
from services.motion.predictors.everyone.network import FILTER_AHEAD, FILTER_PAST
from services.motion.predictors.everyone.train.prepared import PreparedClip, prepare
from services.motion.speech_states import Heard
from services.motion.train.clips import Clips, array_bytes
from services.motion.train.content_augmentation import ContentAugmentation, augmented
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Fitted
from services.motion.train.sampling import Draw, clip_chances, rows_between, tensors
from services.motion.types import ROWS_PER_FRAME
from services.training.trainset.reader import BoundedCache

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
HEARD: Final = FILTER_PAST + WINDOW + FILTER_AHEAD
"""Frames of speech of a stretch: a window, and what the filter hears around the window."""
MARGIN: Final = 2 * HEARD
"""Frames of silence around a clip, from which stretches may be drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig(ContentAugmentation):
    """Settings of drawing and augmenting stretches."""

    batch_size: Annotated[int, Field(ge=1)] = 48
    speaker_exponent: float = 0.35
    """A speaker with m frames is drawn in proportion to m to this power: 1 draws frames equally, 0 draws speakers equally."""
    speed_range: tuple[float, float] = (0.85, 1.18)
    rest_jitter: float = 0.1
    """Noise of the rest mouth, in units of the movement of each point."""


class Batch(NamedTuple, Generic[ArrayT]):
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

    def on(self, device: torch.device) -> Batch[Tensor]:
        """Return the batch as tensors on a device."""
        return Batch(*tensors(self, device))


class BatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        fitted: filters, of which the network corrects the shared one.
        config: settings.
        heard: input of the network.
    """

    def __init__(self, clips: Clips, space: ExpressionSpace, fitted: Fitted, config: BatchConfig, heard: Heard) -> None:
        self._clips: BoundedCache[int, PreparedClip] = BoundedCache(
            lambda place: prepare(clips[place], space, fitted, heard, MARGIN), array_bytes
        )
        self._heard = heard
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> Batch[Float32]:
        """Draw one batch."""
        rows = [self._stretch(rng) for _ in range(self._config.batch_size)]
        return Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _stretch(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Draw a stretch that lies within the clip by half at least."""
        clip = self._clips[self._draw(rng)]
        speed = float(np.exp(rng.uniform(*np.log(self._config.speed_range))))
        last = clip.frames - 0.5 * WINDOW * speed
        start = MARGIN + rng.uniform(-0.5 * WINDOW, max(last, 1.0 - 0.5 * WINDOW))
        frames = start + speed * np.arange(WINDOW)
        left, nearest = frames.astype(np.intp), np.round(frames).astype(np.intp)
        rows = clip.content.reshape(-1, clip.content.shape[-1])
        heard = (start - speed * FILTER_PAST) * ROWS_PER_FRAME + speed * np.arange(HEARD * ROWS_PER_FRAME)
        content = augmented(rows_between(rows, heard), rows, self._config, rng).reshape(HEARD, ROWS_PER_FRAME, -1)
        states = rows_between(clip.states, start - speed * FILTER_PAST + speed * np.arange(HEARD))
        jitter = rng.normal(0.0, self._config.rest_jitter) * clip.movement
        return (
            heard_frames(content, states, self._heard),
            rows_between(clip.offsets, frames) - jitter,
            clip.rest + jitter,
            clip.valid[left] & clip.valid[left + 1],
            clip.spread,
            clip.closed[nearest],
            np.asarray(clip.closed_opening, np.float32),
            rows_between(clip.alone, frames),
        )
