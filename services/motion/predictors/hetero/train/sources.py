"""What the generator learns from: clips with a track (with or without good pixels), and speech without pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Bool, Float32, UInt8
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.landmark_layout import NUM_UPPER, pose_landmarks
from services.common.face.landmarks import mouth_opening
from services.motion.basis import LandmarkBasis
from services.motion.features import bilabial_probability, content_rows, silence
from services.motion.predictors.hetero.inputs import QUIET, WINDOW, relative_mel
from services.motion.predictors.hetero.train.teacher import Teacher
from services.motion.speech_states import STATES, silent_states, states_of
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip
from services.motion.types import NUM_MELS, NUM_PHONES, NUM_POINTS, ROWS_PER_FRAME, SpeechFeatures
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet

PAD: Final = WINDOW
"""Frames of silence before and after a clip, so that windows reach over the ends as in a stream."""
LABEL_SHARE: Final = 0.5
"""Share of a known phone label in the target of a row; the audio stage's posteriorgram has the rest."""


@dataclass(frozen=True, slots=True)
class Source:
    """One clip of T frames with PAD frames of silence at both ends: F = T + 2 PAD.

    Attributes:
        mel: float32 [4 F, 80], relative mel power.
        states: float32 [F, 192], states of the speech encoder; silence if the generator does not hear them.
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


def seen_source(data: TrainSet, row: ClipRow, clip: TrainingClip, basis: LandmarkBasis, teacher: Teacher) -> Source:
    """Return a clip with a face.

    Raises:
        InvalidRequest: a file of the clip is missing or damaged.
    """
    mouths = clip.mouth_landmarks[clip.usable]
    mouth = measure_mouth(mouths, basis)
    begin = max(0, row.lag_frames)
    opening = mouth_opening(clip.mouth_landmarks)
    low, high = np.percentile(opening[clip.usable], [8, 90])
    closed = (bilabial_probability(clip.features) > 0.5) & clip.usable & (opening < low + 0.2 * (high - low))
    return Source(
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
        closed_opening=float(low),
        mouths=mouths,
        pose=mean_pose_landmarks(data, row),
    )


def heard_source(data: TrainSet, row: ClipRow, basis: LandmarkBasis, teacher: Teacher) -> Source:
    """Return a clip of speech without a face.

    Raises:
        InvalidRequest: a file of the clip is missing or damaged.
    """
    extra = () if teacher.heard == "paper" else (STATES,)
    arrays = data.arrays(row, "speech", ("posteriorgram", "mel", "speech_probability", *extra))
    posteriorgram, mel, speaking, *states = (np.asarray(values, np.float32) for values in arrays.values())
    features = SpeechFeatures(posteriorgram, mel, speaking, dict(zip(extra, states, strict=True)))
    frames = len(features) + 2 * PAD
    size = len(basis.typical_spread)
    return Source(
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
        InvalidRequest: the clip's track is missing or damaged.
    """
    track = data.arrays(row, "track", ("landmarks", "usable", "rotation", "translation", "scale"))
    frames = np.flatnonzero(track["usable"])
    found = [
        to_head_space(
            pose_landmarks(np.asarray(track["landmarks"][frame], np.float32)),
            HeadPose(float(track["scale"][frame]), track["rotation"][frame], track["translation"][frame]),
        )
        for frame in frames
    ]
    return np.asarray(np.mean(found, axis=0), np.float32)


def _states(features: SpeechFeatures, teacher: Teacher) -> Float32:
    return silent_states(len(features)) if teacher.heard == "paper" else states_of(features)


def _labels(data: TrainSet, row: ClipRow) -> UInt8 | None:
    return np.asarray(data.arrays(row, "phones", ("labels",))["labels"], np.uint8) if row.phones else None


def _phone_targets(features: SpeechFeatures, labels: UInt8 | None, begin: int) -> Float32:
    """Return the target of each row with the silence around the clip, float32 [4 F, 40].

    Args:
        features: of the clip.
        labels: phone labels of the clip's rows before its lag was taken out; None: there are none.
        begin: first frame of the labels that the features keep.
    """
    rows = features.posteriorgram.reshape(-1, NUM_PHONES).copy()
    if labels is not None:
        kept = labels[begin * ROWS_PER_FRAME :][: len(rows)]
        known = np.flatnonzero(kept < NUM_PHONES)
        rows[known] *= 1.0 - LABEL_SHARE
        rows[known, kept[known]] += LABEL_SHARE
    quiet = silence(PAD).posteriorgram.reshape(-1, NUM_PHONES)
    return np.concatenate([quiet, rows, quiet])


def _padded(mel: Float32, value: float) -> Float32:
    quiet = np.full((PAD * ROWS_PER_FRAME, NUM_MELS), value, np.float32)
    return np.concatenate([quiet, mel.reshape(-1, NUM_MELS), quiet])


def _framed(values: np.ndarray) -> np.ndarray:
    """Return values of T frames with PAD frames of zeros at both ends."""
    return np.pad(values, [(PAD, PAD), *[(0, 0)] * (values.ndim - 1)])
