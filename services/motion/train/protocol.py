"""The evaluation protocol on clips: enrol on one part, predict the other part, control with wrong sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.face.landmarks import mouth_opening
from services.common.wire.mouth_curves import MOTION_FRAME_S, TRIGGERS, Trigger, around_phones, phone_times, shift_ms
from services.motion.basis import LandmarkBasis
from services.motion.features import bilabial_probability
from services.motion.style import Style, StyleNetwork, encode_style
from services.motion.train.clips import TrainingClip
from services.motion.train.metrics import MotionScores, pearson, score_motion
from services.motion.types import SpeechFeatures

LONG_CLIP_FRAMES = 425
"""Clips of at least 17 s are enrolled on their first 10 s, shorter clips in two folds of 60 and 40 %."""
SHORT_CLIP_FRAMES = 100
_NUM_WRONG = 10

Predict = Callable[[SpeechFeatures, Style], Float32]
"""Function from features of T frames and a style to mouths float32 [T, 59, 3]."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Enrolment and test part of a clip, as slices of its frames."""

    enrolment: slice
    test: slice


Encode = Callable[[TrainingClip, Fold], Style]
"""Function that measures the style of a clip's fold."""


def folds(num_frames: int) -> list[Fold]:
    """Return the folds of a clip.

    Clips under 4 s are enrolled on themselves: only the face's rest and amplitude come from the enrolment, no motion.
    """
    if num_frames < SHORT_CLIP_FRAMES:
        return [Fold(slice(0, num_frames), slice(0, num_frames))]
    if num_frames >= LONG_CLIP_FRAMES:
        return [Fold(slice(0, 250), slice(250, num_frames))]
    cut, back = int(num_frames * 0.6), int(num_frames * 0.4)
    return [Fold(slice(0, cut), slice(cut, num_frames)), Fold(slice(back, num_frames), slice(0, back))]


AroundPhones = tuple[Float64, Float64]
"""True and predicted opening about phones, float64 [E, W] each."""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """Scores over the test parts of one clip.

    Attributes:
        name: name of the clip.
        speaker: name of the speaker.
        scores: means over the test parts.
        wrong_audio: mean r of opening over ten wrong sounds; NaN: not measured.
        phones: true and predicted opening about the phones of the test parts, float64 [E, W] each, by the kind of phone
            (mouth_curves.around_phones).
    """

    name: str
    speaker: str
    scores: MotionScores
    wrong_audio: float
    phones: Mapping[Trigger, AroundPhones] = field(default_factory=dict)


def wrong_sounds(features: SpeechFeatures) -> Iterator[SpeechFeatures]:
    """Yield the clip's own sound, shifted circularly by ten amounts that are far from zero."""
    length = len(features)
    for index in range(_NUM_WRONG):
        shift = round(length * (0.15 + 0.7 * (index + 0.5) / _NUM_WRONG))
        rows = np.roll(np.arange(length), shift)
        yield features[rows]


def closed_threshold(openings: Float32) -> float:
    """Return the opening below which lips count as closed: the opening of the shut mouth plus a sixth of the range."""
    low, high = np.percentile(openings, [5, 95])
    return float(low + (high - low) / 6.0)


def encoded_mouths(basis: LandmarkBasis, encoder: StyleNetwork) -> Encode:
    """Return a function that measures the style of a fold's enrolment part: the arrays that every style holds."""

    def encode(clip: TrainingClip, fold: Fold) -> Style:
        return encode_style(clip.mouth_landmarks[fold.enrolment], clip.usable[fold.enrolment], basis, encoder)

    return encode


def evaluate_clip(clip: TrainingClip, encode: Encode, predict: Predict, *, control: bool = True) -> ClipResult:
    """Evaluate the self-re-enactment of one clip's landmarks.

    Args:
        clip: tracked clip without lag.
        encode: measures the style of a fold.
        predict: the predictor under test.
        control: whether to predict from wrong sounds too.
    """
    parts = [(fold, encode(clip, fold)) for fold in folds(len(clip))]
    threshold = closed_threshold(mouth_opening(clip.mouth_landmarks[clip.usable]))
    scores, wrong = [], []
    around: dict[Trigger, list[AroundPhones]] = {kind: [] for kind in TRIGGERS}
    for fold, style in parts:
        truth, usable = clip.mouth_landmarks[fold.test], clip.usable[fold.test]
        # In a dub the sound before the test part is known too. So the whole clip is predicted, and the test part is kept.
        predicted = predict(clip.features, style)[fold.test]
        bilabial = bilabial_probability(clip.features)[fold.test]
        scores.append(score_motion(predicted, truth, style.mean_mouth, usable, bilabial, threshold))
        for kind, phones in TRIGGERS.items():
            events = phone_times(clip.features.posteriorgram[fold.test], phones)
            seconds = np.asarray(np.arange(len(truth)) * MOTION_FRAME_S, np.float64)
            curves = (np.where(usable, mouth_opening(mouths), np.nan) for mouths in (truth, predicted))
            before, after = (around_phones(curve, seconds, events) for curve in curves)
            around[kind].append((before, after))
        for sound in wrong_sounds(clip.features) if control else ():
            opening = mouth_opening(predict(sound, style)[fold.test])
            wrong.append(pearson(opening[usable], mouth_opening(truth)[usable]))
    return ClipResult(
        clip.name,
        clip.speaker,
        mean_scores(scores),
        fmean(wrong) if wrong else float("nan"),
        {kind: joined_phones(parts) for kind, parts in around.items()},
    )


def joined_phones(parts: Sequence[AroundPhones]) -> AroundPhones:
    """Return the openings about the phones of several parts (at least one) together."""
    return np.concatenate([before for before, _ in parts]), np.concatenate([after for _, after in parts])


def phone_shift_ms(results: Sequence[ClipResult], kind: Trigger) -> float:
    """Return how much later than the true mouths the predicted ones reach the extreme of a phone, over all clips (shift_ms)."""
    return shift_ms(*joined_phones([result.phones[kind] for result in results]), kind)


def people_and_means(results: Sequence[ClipResult]) -> tuple[list[MotionScores], dict[str, float]]:
    """Return the scores of each person, whose clips count by their frames, and means of figures over people by name.

    Args:
        results: results of clips, at least one.

    Returns:
        One MotionScores for each person; `r_opening`, `r_width`, `lmd_ratio`, `spread`, `width_spread` and `fastest_step`, in which
        people count equally, and `vowel_shift_ms` and `closure_shift_ms` over the phones of all clips.
    """
    by_person: dict[str, list[MotionScores]] = {}
    for result in results:
        by_person.setdefault(result.speaker, []).append(result.scores)
    people = [mean_scores(own) for own in by_person.values()]
    return people, {
        "r_opening": fmean(each.opening_correlation for each in people),
        "r_width": fmean(each.width_correlation for each in people),
        "lmd_ratio": fmean(each.lip_distance / each.mean_mouth_distance for each in people),
        "spread": fmean(each.spread_ratio for each in people),
        "width_spread": fmean(each.width_spread_ratio for each in people),
        "fastest_step": fmean(each.fastest_step_ratio for each in people),
        **{f"{kind}_shift_ms": phone_shift_ms(results, kind) for kind in TRIGGERS},
    }


def mean_scores(scores: list[MotionScores], *, by_frames: bool = True) -> MotionScores:
    """Return the mean of scores, weighted by frames or equally. Counts are summed."""
    weights = np.array([score.frames if by_frames else 1 for score in scores], np.float64)
    values: dict[str, float | int] = {}
    for each in fields(MotionScores):
        column = np.array([getattr(score, each.name) for score in scores], np.float64)
        counted = each.name in {"frames", "closure_hits", "closure_events"}
        values[each.name] = int(column.sum()) if counted else float((column * weights).sum() / weights.sum())
    return MotionScores(**values)  # type: ignore[arg-type]
