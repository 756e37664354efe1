"""Data for the generator of `hetero`: clips with a face, with or without good pixels, and speech without pictures.

Relative mel spectra are changed at random: other voices, microphones, rooms and noise than the few of the training set.

The teacher of speech without pictures is a linear filter from speech to landmark coefficients, in closed form.

Heterogeneous sources are the point of Xie et al. 2021 (Sec. 1): the landmark generator also learns from data without good pictures.
Speech alone has no landmarks, so a filter names them: a ridge regression over the training clips with a face, from the states of
the speech encoder, or from the audio stage's posteriorgram and band energies if the generator takes the paper's spectrogram.
Narrow corpora have a filter of their own beside the shared filter (research.motion.ridge), and only the shared filter
teaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from research.motion.clips import (
    Clips,
    Draw,
    TrainingClip,
    array_bytes,
    clip_chances,
    closed_frames,
    frame_weights,
    rows_between,
    tensors,
)
from research.motion.ridge import Filter, RidgeSums, distance_penalty, fit_states_filter, mouth_target
from research.training.trainset import BoundedCache, ClipRow, TrainSet
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.landmarks import NUM_UPPER, pose_landmarks
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT, content_rows, silence
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS
from services.motion.predictors.hetero.predictor import (
    QUIET,
    SERVED,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    SpeechInput,
    mel_before,
    relative_mel,
)
from services.motion.speech_states import (
    NUM_STATES,
    STATES,
    STATES_AHEAD,
    STATES_PAST,
    neighbours,
    silence_with_states,
    silent_states,
    states_of,
)
from services.motion.style import measure_mouth
from services.motion.types import NUM_MELS, NUM_PHONES, NUM_POINTS, ROWS_PER_FRAME, SpeechFeatures

PAD: Final = WINDOW
"""Frames of silence before and after a clip, so that windows reach over the ends as in a stream."""
LABEL_SHARE: Final = 0.5
"""Share of a known phone label in the target of a row; the audio stage's posteriorgram has the rest."""
ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)


def input_shape(speech_input: SpeechInput) -> tuple[int, ...]:
    """Return the shape of a frame that the generator takes: [4, 80] or [192]."""
    return (ROWS_PER_FRAME, NUM_MELS) if speech_input == "mel" else (NUM_STATES,)


def network_input(features: SpeechFeatures, speech_input: SpeechInput = SERVED) -> Float32:
    """Return the input for a whole clip of T frames with the silence around the clip: float32 [13 + T + 5, *input_shape].

    Raises:
        InvalidRequestError: the features have no states of the speech encoder, and `speech_input` asks for them.
    """
    if speech_input == "mel":
        whole = SpeechFeatures.joined([features, silence(WINDOW_AHEAD)])
        return np.concatenate([mel_before(WINDOW_PAST), relative_mel(whole)])
    whole = SpeechFeatures.joined([features, silence_with_states(WINDOW_AHEAD)])
    return np.concatenate([silent_states(WINDOW_PAST), states_of(whole)])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumNoise:
    """Strength of the changes, in units of the relative mel power.

    Attributes:
        tract: standard deviation of the logarithm of the factor on the frequency axis (length of the vocal tract).
        gain: range of the factor on all bands.
        tilt: standard deviation of the smooth offset over bands (microphone).
        level: standard deviation of the offset of all bands (another history of the stream).
        noisy: share of stretches with background noise.
        noise_level: range of the level of the noise.
        smeared: share of stretches with an echo: power that dies away over rows.
        hidden: share of stretches with a hidden span of bands; as large is the share with a hidden span of rows.
    """

    tract: float = 0.07
    gain: tuple[float, float] = (0.7, 1.3)
    tilt: float = 0.35
    level: float = 0.25
    noisy: float = 0.5
    noise_level: tuple[float, float] = (-2.5, 0.2)
    smeared: float = 0.2
    hidden: float = 0.4


def changed_spectrum(mel: Float32, noise: SpectrumNoise, rng: np.random.Generator) -> Float32:
    """Return a changed spectrum: relative mel power, float32 [R, 80] -> [R, 80]."""
    bands = np.arange(NUM_MELS)
    positions = np.clip(bands * np.exp(rng.normal(0.0, noise.tract)), 0.0, NUM_MELS - 1.001)
    low = positions.astype(np.intp)
    share = (positions - low).astype(np.float32)
    mel = (1.0 - share) * mel[:, low] + share * mel[:, low + 1]
    if rng.random() < noise.smeared:
        mel = _smeared(mel, float(rng.uniform(0.3, 0.8)))
    mel = mel * np.float32(rng.uniform(*noise.gain)) + _smooth(rng, noise.tilt, 6) + np.float32(rng.normal(0.0, noise.level))
    if rng.random() < noise.noisy:
        floor = np.float32(rng.uniform(*noise.noise_level)) + _smooth(rng, 0.4, 5)
        grain = rng.normal(0.0, 0.25, mel.shape).astype(np.float32)
        # One unit of relative power is about two of the logarithm of power.
        mel = np.logaddexp(2.0 * mel, 2.0 * (floor + grain)) / np.float32(2.0)
    mean = mel.mean()
    if rng.random() < noise.hidden:
        begin = int(rng.integers(0, NUM_MELS - 8))
        mel[:, begin : begin + int(rng.integers(2, 9))] = mean
    if rng.random() < noise.hidden:
        begin = int(rng.integers(0, len(mel) - 10))
        mel[begin : begin + int(rng.integers(3, 9))] = mean
    return np.asarray(mel, np.float32)


def _smooth(rng: np.random.Generator, strength: float, knots: int) -> Float32:
    """Return a random smooth offset over bands, float32 [80]."""
    return np.interp(np.arange(NUM_MELS), np.linspace(0, NUM_MELS - 1, knots), rng.normal(0.0, strength, knots)).astype(np.float32)


def _smeared(mel: Float32, decay: float) -> Float32:
    """Return the spectrum in a room: each row keeps at least what is left of the row before, a loss of `decay` a row."""
    smeared = mel.copy()
    for row in range(1, len(mel)):
        np.maximum(smeared[row], smeared[row - 1] - np.float32(decay), out=smeared[row])
    return smeared


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Settings of the teacher that takes phones and energies. The teacher that takes states has the settings of
    research.motion.ridge.

    Attributes:
        past: frames before a frame that the filter reads.
        ahead: frames after the frame.
        strength: strength of the ridge at the frames that count most, in units of the mean variance of an input.
        speaker_exponent: a speaker with m frames counts m to this power.
    """

    past: int = 7
    ahead: int = 4
    strength: float = 0.06
    speaker_exponent: float = 0.45


@dataclass(frozen=True, slots=True)
class Teacher:
    """Fitted teacher.

    Attributes:
        shared: filter of all footage, from [T, I] to [T, K] in units of the person's spread.
        apart: by narrow corpus, the filter to add, see RidgeSums.
        speech_input: input of the generator.
    """

    shared: Filter
    apart: Mapping[str, Filter]
    config: TeacherConfig
    speech_input: SpeechInput

    def answer(self, features: SpeechFeatures, content: Float32) -> Float32:
        """Return what the teacher expects of speech: coefficients float32 [T, K] in units of the spread.

        Args:
            features: of T frames.
            content: float32 [T, 4, 44], content rows of the features.
        """
        return self.shared(self._inputs(features, content))

    def alone(self, clip: TrainingClip) -> Float32:
        """Return the coefficients of a clip that hold in its narrow corpus alone, float32 [T, K]: 0 outside of narrow corpora."""
        own = self.apart.get(clip.apart)
        if own is None:
            return np.zeros((len(clip), len(self.shared.bias)), np.float32)
        return own(self._inputs(clip.features, clip.content))

    def _inputs(self, features: SpeechFeatures, content: Float32) -> Float32:
        if self.speech_input == "mel":
            return _neighbours(content, self.config)
        return neighbours(states_of(features), STATES_PAST, STATES_AHEAD).reshape(len(features), -1)


def fit_teacher(clips: Clips, basis: LandmarkBasis, config: TeacherConfig, speech_input: SpeechInput) -> Teacher:
    """Fit the teacher to clips with a face. All clips are read."""
    num_coefficients = len(basis.typical_spread)
    if speech_input != "mel":
        fitted = fit_states_filter(
            clips, partial(mouth_target, basis=basis), num_coefficients, past=STATES_PAST, ahead=STATES_AHEAD
        )
        return Teacher(fitted.shared, fitted.apart, config, speech_input)
    width, channels = config.past + 1 + config.ahead, NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * width, num_coefficients)
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        sums.add(_neighbours(clip.content, config)[clip.usable], mouth_target(clip, basis)[clip.usable], float(weight), clip.apart)
    penalty = distance_penalty(width, config.past, config.strength * sums.input_variance())
    fitted = sums.solve(np.repeat(penalty, channels))
    return Teacher(fitted.shared, fitted.apart, config, speech_input)


def _neighbours(content: Float32, config: TeacherConfig) -> Float32:
    """Return the content rows around each frame: float32 [T, 176 (past + 1 + ahead)]."""
    rows = content.reshape(len(content), -1)
    padded = np.pad(rows, ((config.past, config.ahead), (0, 0)), mode="edge")
    width = config.past + 1 + config.ahead
    return np.concatenate([padded[step : step + len(rows)] for step in range(width)], axis=1)


@dataclass(frozen=True, slots=True)
class PaddedClip:
    """One clip of T frames with PAD frames of silence at both ends: F = T + 2 PAD.

    Attributes:
        mel: float32 [4 F, 80], relative mel power.
        states: float32 [F, 192], states of the speech encoder; silence if the generator does not take them.
        phones: float32 [4 F, 40], target of the phones.
        taught: float32 [F, K], coefficients that the teacher expects, in units of the person's spread.
        inside: bool [F], whether the teacher's answer counts.
        offsets: float32 [F, 59, 3], offsets from the person's rest mouth, crop pixels; 0 without a face.
        valid: bool [F], whether the offsets count.
        alone: float32 [F, K], coefficients that hold in the clip's narrow corpus alone.
        spread: float32 [K], the person's spread; the typical spread without a face.
        rest: float32 [59, 3], the rest mouth.
        closed: bool [F], whether a bilabial sounds and the true lips are shut.
        closed_opening: opening of the shut mouth, crop pixels.
        mouths: float32 [U, 59, 3], usable mouths in head space; U = 0 without a face.
        pose: float32 [99, 3], mean pose landmarks of the usable frames; 0 without a face.
    """

    mel: Float32
    states: Float32
    phones: Float32
    taught: Float32
    inside: Bool
    offsets: Float32
    valid: Bool
    alone: Float32
    spread: Float32
    rest: Float32
    closed: Bool
    closed_opening: float
    mouths: Float32
    pose: Float32


def seen_source(data: TrainSet, row: ClipRow, clip: TrainingClip, basis: LandmarkBasis, teacher: Teacher) -> PaddedClip:
    """Return a clip with a face.

    Raises:
        InvalidRequestError: a file of the clip is missing or damaged.
    """
    mouths = clip.mouth_landmarks[clip.usable]
    mouth = measure_mouth(mouths, basis)
    begin = max(0, row.lag_frames)
    closed, closed_opening = closed_frames(clip)
    return PaddedClip(
        mel=_padded(relative_mel(clip.features), QUIET),
        phones=_phone_targets(clip.features, _labels(data, row), begin),
        states=_framed(_states(clip.features, teacher)),
        taught=_framed(teacher.answer(clip.features, clip.content)),
        inside=_framed(np.ones(len(clip), np.bool_)),
        offsets=_framed(np.asarray(clip.mouth_landmarks - mouth.rest_mouth, np.float32)),
        valid=_framed(clip.usable),
        alone=_framed(teacher.alone(clip)),
        spread=mouth.spread,
        rest=mouth.rest_mouth,
        closed=_framed(closed),
        closed_opening=closed_opening,
        mouths=mouths,
        pose=mean_pose_landmarks(data, row),
    )


def speech_source(data: TrainSet, row: ClipRow, basis: LandmarkBasis, teacher: Teacher) -> PaddedClip:
    """Return a clip of speech without a face.

    Raises:
        InvalidRequestError: a file of the clip is missing or damaged.
    """
    extra = () if teacher.speech_input == "mel" else (STATES,)
    arrays = data.arrays(row, "speech", ("posteriorgram", "mel", "speech_probability", *extra))
    posteriorgram, mel, speaking, *states = (np.asarray(values, np.float32) for values in arrays.values())
    features = SpeechFeatures(posteriorgram, mel, speaking, dict(zip(extra, states, strict=True)))
    frames = len(features) + 2 * PAD
    size = len(basis.typical_spread)
    return PaddedClip(
        mel=_padded(relative_mel(features), QUIET),
        phones=_phone_targets(features, _labels(data, row), 0),
        states=_framed(_states(features, teacher)),
        taught=_framed(teacher.answer(features, content_rows(features))),
        inside=_framed(np.ones(len(features), np.bool_)),
        offsets=np.zeros((frames, NUM_POINTS, 3), np.float32),
        valid=np.zeros(frames, np.bool_),
        alone=np.zeros((frames, size), np.float32),
        spread=basis.typical_spread,
        rest=np.zeros((NUM_POINTS, 3), np.float32),
        closed=np.zeros(frames, np.bool_),
        closed_opening=0.0,
        mouths=np.zeros((0, NUM_POINTS, 3), np.float32),
        pose=np.zeros((NUM_UPPER, 3), np.float32),
    )


def mean_pose_landmarks(data: TrainSet, row: ClipRow) -> Float32:
    """Return the mean of a clip's pose landmarks in head space over its usable frames, float32 [99, 3].

    Raises:
        InvalidRequestError: the clip's track is missing or damaged.
    """
    track = data.arrays(row, "track", ("landmarks", "usable", "rotation", "translation", "scale"))
    frames = np.flatnonzero(track["usable"])
    landmarks = [
        to_head_space(
            pose_landmarks(np.asarray(track["landmarks"][frame], np.float32)),
            HeadPose(float(track["scale"][frame]), track["rotation"][frame], track["translation"][frame]),
        )
        for frame in frames
    ]
    return np.asarray(np.mean(landmarks, axis=0), np.float32)


def _states(features: SpeechFeatures, teacher: Teacher) -> Float32:
    return silent_states(len(features)) if teacher.speech_input == "mel" else states_of(features)


def _labels(data: TrainSet, row: ClipRow) -> UInt8 | None:
    return np.asarray(data.arrays(row, "phones", ("labels",))["labels"], np.uint8) if row.phones else None


def _phone_targets(features: SpeechFeatures, labels: UInt8 | None, begin: int) -> Float32:
    """Return the target of each row with the silence around the clip, float32 [4 F, 40].

    Args:
        labels: phone labels of the clip's rows before its lag was taken out; None: there are none.
        begin: first frame of the labels that the features keep.
    """
    rows = features.posteriorgram.reshape(-1, NUM_PHONES).copy()
    if labels is not None:
        kept = labels[begin * ROWS_PER_FRAME :][: len(rows)]
        labelled = np.flatnonzero(kept < NUM_PHONES)
        rows[labelled] *= 1.0 - LABEL_SHARE
        rows[labelled, kept[labelled]] += LABEL_SHARE
    quiet = silence(PAD).posteriorgram.reshape(-1, NUM_PHONES)
    return np.concatenate([quiet, rows, quiet])


def _padded(mel: Float32, value: float) -> Float32:
    quiet = np.full((PAD * ROWS_PER_FRAME, NUM_MELS), value, np.float32)
    return np.concatenate([quiet, mel.reshape(-1, NUM_MELS), quiet])


def _framed(values: np.ndarray) -> np.ndarray:
    """Return values of T frames with PAD frames of zeros at both ends."""
    return np.pad(values, [(PAD, PAD), *[(0, 0)] * (values.ndim - 1)])


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroBatchConfig:
    """Settings of drawing stretches.

    Attributes:
        seen: stretches of clips with a face.
        heard: spans of speech without pictures; 0 is the ablation without heterogeneous sources.
        frames: frames of a span that are answered.
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


class HeteroBatch(NamedTuple, Generic[ArrayT]):
    """N stretches of T answered frames, float32: arrays as they are drawn, tensors where the network learns.

    Attributes:
        speech: [N, T + 18, 192] or [N, T + 18, 4, 80], input of the generator.
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

    def on(self, device: torch.device) -> HeteroBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return HeteroBatch(*tensors(self, device))


def speech_chances(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return how often each clip of speech is drawn, float64 [N]; motion.clips.clip_chances is for clips with a face."""
    frames: dict[str, int] = {}
    for row in rows:
        frames[row.speaker] = frames.get(row.speaker, 0) + row.frames
    return np.array([row.weight * row.frames * frames[row.speaker] ** (exponent - 1.0) for row in rows], np.float64)


class HeteroBatchSampler:
    """Sampler of batches. The same generator state gives the same batch.

    Args:
        clips: training clips with a face. They are read when they are drawn.
        speech: rows of speech without a face; may be empty.
        basis: landmark basis of the style.
        teacher: teacher of speech without pictures.
    """

    def __init__(
        self,
        data: TrainSet,
        clips: Clips,
        speech: Sequence[ClipRow],
        basis: LandmarkBasis,
        teacher: Teacher,
        config: HeteroBatchConfig,
    ) -> None:
        self._config, self._clips, self._speech = config, clips, tuple(speech)
        self._speech_input = teacher.speech_input
        self._seen: BoundedCache[int, PaddedClip] = BoundedCache(
            lambda index: seen_source(data, clips.rows[index], clips[index], basis, teacher), array_bytes
        )
        self._speech_sources: BoundedCache[int, PaddedClip] = BoundedCache(
            lambda index: speech_source(data, self._speech[index], basis, teacher), array_bytes
        )
        self._draw_seen = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._draw_speech = Draw(speech_chances(speech, config.speaker_exponent)) if speech else None
        self._indices_of: dict[str, list[int]] = {}
        for index, row in enumerate(clips.rows):
            self._indices_of.setdefault(row.speaker, []).append(index)

    def draw(self, rng: np.random.Generator) -> HeteroBatch[Float32]:
        """Draw one batch."""
        rows = [self._span(rng, self._seen[index], index) for index in (self._draw_seen(rng) for _ in range(self._config.seen))]
        if self._draw_speech is not None:
            for _ in range(self._config.heard):
                # Speech without pictures is shown with any person, because the teacher answers for everyone alike.
                rows.append(self._span(rng, self._speech_sources[self._draw_speech(rng)], self._draw_seen(rng)))
        return HeteroBatch(*(np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)))

    def _span(self, rng: np.random.Generator, source: PaddedClip, person: int) -> tuple[Array, ...]:
        config = self._config
        length = config.frames + SHRINKS
        speed = float(np.exp(rng.uniform(*np.log(config.speed_range))))
        have = len(source.valid)
        start = rng.uniform(0.0, max(have - speed * length - 1.0, 0.0))
        positions = start * ROWS_PER_FRAME + speed * np.arange(length * ROWS_PER_FRAME)
        answered = start + speed * (WINDOW_PAST + np.arange(config.frames))
        left = np.minimum(answered.astype(np.intp), have - 2)
        named = slice((WINDOW_PAST - PHONES_BEFORE) * ROWS_PER_FRAME, (WINDOW_PAST + config.frames + PHONES_AFTER) * ROWS_PER_FRAME)
        beyond = answered > have - 1
        mouths, pose = self._person(rng, person)
        if self._speech_input == "mel":
            speech = changed_spectrum(rows_between(source.mel, positions), config.noise, rng).reshape(
                length, ROWS_PER_FRAME, NUM_MELS
            )
        else:
            speech = rows_between(source.states, start + speed * np.arange(length))
        return (
            speech,
            rows_between(source.phones, positions)[named].reshape(-1, ROWS_PER_FRAME, NUM_PHONES),
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

    def _person(self, rng: np.random.Generator, index: int) -> tuple[Float32, Float32]:
        """Return reference mouths [R, 59, 3] and pose landmarks [99, 3] of one random clip of the speaker of a clip."""
        indices = self._indices_of[self._clips.rows[index].speaker]
        source = self._seen[indices[rng.integers(len(indices))]]
        frames = rng.integers(0, len(source.mouths), self._config.reference_frames)
        mouths, pose = source.mouths[frames], source.pose
        # Few people are seen in training, so the same person is shown in other sizes and positions.
        size = np.float32(np.exp(rng.normal(0.0, 0.04)))
        mouths = size * mouths + rng.normal(0.0, self._config.rest_jitter, (1, 1, 3)).astype(np.float32)
        pose = size * pose + rng.normal(0.0, self._config.rest_jitter, pose.shape).astype(np.float32)
        return mouths, pose
