"""Batches of stretches for the generator of `hetero`: clips with a face and speech without pictures, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from services.common.array_types import Array, Float32, Float64
from services.motion.basis import LandmarkBasis
from services.motion.predictors.hetero.inputs import WINDOW_PAST
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS
from services.motion.predictors.hetero.train.sources import Source, heard_source, seen_source
from services.motion.predictors.hetero.train.spectrum import SpectrumNoise, changed_spectrum
from services.motion.predictors.hetero.train.teacher import Teacher
from services.motion.train.clips import Clips, array_bytes
from services.motion.train.sampling import Draw, clip_chances, rows_between, tensors
from services.motion.types import NUM_MELS, NUM_PHONES, ROWS_PER_FRAME
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import BoundedCache, TrainSet

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """Settings of drawing stretches.

    Attributes:
        seen: stretches of clips with a face.
        heard: stretches of speech without pictures; 0 is the ablation without heterogeneous sources.
        frames: frames of a stretch that are answered.
        reference_frames: mouths that the reference encoder sees.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        speed_range: factors on the tempo.
        rest_jitter: noise of the reference mouths and pose landmarks, pixels: another camera, another smile.
        noise: changes of the spectrum.
    """

    seen: Annotated[int, Field(ge=1)] = 24
    heard: Annotated[int, Field(ge=0)] = 8
    frames: Annotated[int, Field(ge=1)] = 50
    reference_frames: Annotated[int, Field(ge=1)] = 8
    speaker_exponent: float = 0.4
    speed_range: tuple[float, float] = (0.85, 1.18)
    rest_jitter: float = 1.0
    noise: SpectrumNoise = SpectrumNoise()


class Batch(NamedTuple, Generic[ArrayT]):
    """N stretches of T answered frames, float32: arrays as they are drawn, tensors where the network learns.

    Attributes:
        speech: [N, T + 18, 192] or [N, T + 18, 4, 80], what the generator hears.
        phones: [N, T + 6, 4, 40], phones of the answered frames, of five frames before and of one frame after.
        taught: [N, T, K], the teacher's coefficients in units of the spread.
        inside: [N, T], 1 where the teacher's answer counts.
        offsets: [N, T, 59, 3], offsets from the rest mouth, crop pixels.
        valid: [N, T], 1 where the offsets count.
        alone: [N, T, K], coefficients that hold in the clip's narrow corpus alone; the network answers the rest.
        spread: [N, K], the person's spread.
        rest: [N, 59, 3], the rest mouth.
        closed: [N, T], 1 if a bilabial sounds and the true lips are shut, otherwise 0.
        closed_opening: [N], opening of the shut mouth, crop pixels.
        reference: [N, R, 59, 3], mouths of the same person.
        pose: [N, 99, 3], pose landmarks of the same person.
    """

    speech: ArrayT
    phones: ArrayT
    taught: ArrayT
    inside: ArrayT
    offsets: ArrayT
    valid: ArrayT
    alone: ArrayT
    spread: ArrayT
    rest: ArrayT
    closed: ArrayT
    closed_opening: ArrayT
    reference: ArrayT
    pose: ArrayT

    def on(self, device: torch.device) -> Batch[Tensor]:
        """Return the batch as tensors on a device."""
        return Batch(*tensors(self, device))


def heard_chances(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return how often each clip of speech is drawn, float64 [N], as sampling.clip_chances does for clips with a face."""
    frames: dict[str, int] = {}
    for row in rows:
        frames[row.speaker] = frames.get(row.speaker, 0) + row.frames
    return np.array([row.weight * row.frames * frames[row.speaker] ** (exponent - 1.0) for row in rows], np.float64)


class BatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        data: the training set.
        clips: training clips with a face. They are read when they are drawn.
        speech: rows of speech without a face; may be empty.
        basis: landmark basis of the style.
        teacher: teacher of speech without pictures.
        config: settings.
    """

    def __init__(
        self, data: TrainSet, clips: Clips, speech: Sequence[ClipRow], basis: LandmarkBasis, teacher: Teacher, config: BatchConfig
    ) -> None:
        self._config, self._clips, self._speech = config, clips, tuple(speech)
        self._hears = teacher.heard
        self._seen: BoundedCache[int, Source] = BoundedCache(
            lambda place: seen_source(data, clips.rows[place], clips[place], basis, teacher), array_bytes
        )
        self._heard: BoundedCache[int, Source] = BoundedCache(
            lambda place: heard_source(data, self._speech[place], basis, teacher), array_bytes
        )
        self._draw_seen = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._draw_heard = Draw(heard_chances(speech, config.speaker_exponent)) if speech else None
        self._places: dict[str, list[int]] = {}
        for place, row in enumerate(clips.rows):
            self._places.setdefault(row.speaker, []).append(place)

    def draw(self, rng: np.random.Generator) -> Batch[Float32]:
        """Draw one batch."""
        rows = [self._stretch(rng, self._seen[place], place) for place in (self._draw_seen(rng) for _ in range(self._config.seen))]
        if self._draw_heard is not None:
            for _ in range(self._config.heard):
                # Speech without pictures is shown with any person, because the teacher answers for everyone alike.
                rows.append(self._stretch(rng, self._heard[self._draw_heard(rng)], self._draw_seen(rng)))
        return Batch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _stretch(self, rng: np.random.Generator, source: Source, person: int) -> tuple[Array, ...]:
        config = self._config
        length = config.frames + SHRINKS
        speed = float(np.exp(rng.uniform(*np.log(config.speed_range))))
        have = len(source.valid)
        start = rng.uniform(0.0, max(have - speed * length - 1.0, 0.0))
        heard = start * ROWS_PER_FRAME + speed * np.arange(length * ROWS_PER_FRAME)
        answered = start + speed * (WINDOW_PAST + np.arange(config.frames))
        left = np.minimum(answered.astype(np.intp), have - 2)
        named = slice((WINDOW_PAST - PHONES_BEFORE) * ROWS_PER_FRAME, (WINDOW_PAST + config.frames + PHONES_AFTER) * ROWS_PER_FRAME)
        beyond = answered > have - 1
        mouths, pose = self._person(rng, person)
        if self._hears == "paper":
            speech = changed_spectrum(rows_between(source.mel, heard), config.noise, rng).reshape(length, ROWS_PER_FRAME, NUM_MELS)
        else:
            speech = rows_between(source.states, start + speed * np.arange(length))
        return (
            speech,
            rows_between(source.phones, heard)[named].reshape(-1, ROWS_PER_FRAME, NUM_PHONES),
            rows_between(source.taught, answered),
            source.inside[left] & source.inside[left + 1] & ~beyond,
            rows_between(source.offsets, answered),
            source.valid[left] & source.valid[left + 1] & ~beyond,
            rows_between(source.alone, answered),
            source.spread,
            source.rest,
            source.closed[np.minimum(np.round(answered).astype(np.intp), have - 1)],
            np.asarray(source.closed_opening, np.float32),
            mouths,
            pose,
        )

    def _person(self, rng: np.random.Generator, place: int) -> tuple[Float32, Float32]:
        """Return reference mouths [R, 59, 3] and pose landmarks [99, 3] of one random clip of the speaker of a clip."""
        places = self._places[self._clips.rows[place].speaker]
        source = self._seen[places[rng.integers(len(places))]]
        frames = rng.integers(0, len(source.mouths), self._config.reference_frames)
        mouths, pose = source.mouths[frames], source.pose
        # Few people are seen in training, so the same person is shown in other sizes and places.
        size = np.float32(np.exp(rng.normal(0.0, 0.04)))
        mouths = size * mouths + rng.normal(0.0, self._config.rest_jitter, (1, 1, 3)).astype(np.float32)
        pose = size * pose + rng.normal(0.0, self._config.rest_jitter, pose.shape).astype(np.float32)
        return mouths, pose
