"""The evaluation protocol on clips: enrol on one part, predict the other part, control with wrong sound.

The serving code predicts the motion of whole clips, which is scored against the true mouths. From the scores of held-out clips by
group comes one number, on which a training selects its best step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from statistics import fmean
from typing import Final

import numpy as np

from research.evaluation.delays import at_delays, delay_ms, shift_ms
from research.motion.clips import Clips, TrainingClip, clips_of_rows, shows_the_mouth
from research.training.trainset import TrainSet
from services.common.array_types import Bool, Float32, Float64, Floating
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import NUM_LIPS, lip_width, mouth_opening
from services.common.runs import runs
from services.common.wire.mouth_curves import (
    MOTION_FRAME_S,
    TRIGGERS,
    Trigger,
    around_phones,
    phone_times,
    quick_part,
)
from services.common.wire.timeline import Timeline, sampled
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig
from services.motion.features import bilabial_probability
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor
from services.motion.predictor import Predictor
from services.motion.stream import MotionStream
from services.motion.style import MIN_FRAMES, Style, StyleCode, StyleNetwork, encode_style
from services.motion.types import Motion, SpeechFeatures

LONG_CLIP_FRAMES = 425
"""Clips of at least 17 s are enrolled on their first 10 s, shorter clips in two folds of 60 and 40 %."""
SHORT_CLIP_FRAMES = 100
_NUM_WRONG = 10
Predict = Callable[[SpeechFeatures, Style], Float32]
"""Function from features of T frames and a style to mouths float32 [T, 59, 3]."""
AroundPhones = tuple[Float64, Float64]
"""True and predicted opening about phones, float64 [E, W] each."""
Groups = dict[str, Clips]
"""Held-out clips by group: of the split `val` the groups `known` (speakers of the training) and `new` (other speakers), then one
group for each further split, such as `dev`. Further groups are only shown, never selected on."""
Scores = dict[str, dict[str, float]]
"""Group of clips -> name of a score -> mean over the clips of the group."""
SELECTED_ON: Final = ("known", "new")
"""Groups that the best step is selected on."""
MAX_CLIPS: Final = 24
"""Most clips of a group in a check."""
_MIN_TEST_FRAMES: Final = 10


@dataclass(frozen=True, slots=True)
class MotionScores:
    """Scores of one span of footage; lengths in crop pixels.

    Attributes:
        frames: number of frames that count.
        opening_correlation: Pearson's r of the mouth opening.
        width_correlation: Pearson's r of the lip width.
        lip_distance: mean distance of the 40 lip points in the picture plane (LMD).
        mean_mouth_distance: mean distance of the person's mean mouth.
        spread_ratio: standard deviation of the opening, relative to the true opening's.
        width_spread_ratio: standard deviation of the lip width without its slow part, relative to the true lips'.
        fastest_step_ratio: largest change of the opening from frame to frame, relative to the true opening's.
        step_ratio: mean change of the lips from frame to frame, relative to the true lips'.
        closure_hits: number of p, b, m on which the true and the predicted lips close.
        closure_events: number of p, b, m on which the true lips close.
    """

    frames: int
    opening_correlation: float
    width_correlation: float
    lip_distance: float
    mean_mouth_distance: float
    spread_ratio: float
    width_spread_ratio: float
    fastest_step_ratio: float
    step_ratio: float
    closure_hits: int
    closure_events: int


def pearson(a: Floating, b: Floating) -> float:
    """Return Pearson's r of two sequences, or 0 if a sequence is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def score_motion(
    predicted: Float32, truth: Float32, mean_mouth: Float32, usable: Bool, bilabial: Float32, threshold: float
) -> MotionScores:
    """Return the scores of predicted mouths.

    Args:
        predicted: float32 [T, 59, 3], predicted mouths.
        truth: float32 [T, 59, 3], tracked mouths.
        mean_mouth: float32 [T, 59, 3] or [59, 3], mean mouth of the enrolment footage.
        usable: bool [T].
        bilabial: float32 [T], probability of p, b, m.
        threshold: opening in crop pixels below which predicted and tracked lips count as closed.
    """
    lips = slice(0, NUM_LIPS)
    opening, true_opening = mouth_opening(predicted), mouth_opening(truth)
    keep = usable
    steps = keep[1:] & keep[:-1]

    def change(mouths: Float32) -> float:
        return float(np.linalg.norm(np.diff(mouths[:, lips, :2], axis=0), axis=-1)[steps].mean())

    def distance(mouths: Float32) -> float:
        return float(np.linalg.norm((mouths - truth)[keep][:, lips, :2], axis=-1).mean())

    widths = [quick_part(np.where(keep, lip_width(mouths), np.nan), MOTION_FRAME_S)[keep] for mouths in (predicted, truth)]
    fastest_steps = [np.abs(np.diff(curve))[steps].max(initial=0.0) for curve in (opening, true_opening)]
    hits = events = 0
    for closure in runs(bilabial > 0.5):
        around = slice(max(0, closure.start - 1), closure.stop + 1)
        if keep[around].any() and true_opening[around][keep[around]].min() < threshold:
            events += 1
            hits += int(opening[around].min() < threshold)
    return MotionScores(
        frames=int(keep.sum()),
        opening_correlation=pearson(opening[keep], true_opening[keep]),
        width_correlation=pearson(lip_width(predicted)[keep], lip_width(truth)[keep]),
        lip_distance=distance(predicted),
        mean_mouth_distance=distance(np.broadcast_to(mean_mouth, truth.shape)),
        spread_ratio=float(opening[keep].std() / max(float(true_opening[keep].std()), 1e-6)),
        width_spread_ratio=float(widths[0].std() / max(float(widths[1].std()), 1e-6)),
        fastest_step_ratio=float(fastest_steps[0] / max(float(fastest_steps[1]), 1e-6)),
        step_ratio=change(predicted) / max(change(truth), 1e-6),
        closure_hits=hits,
        closure_events=events,
    )


def served_motion(predictor: PersonPredictor, features: SpeechFeatures) -> list[Motion]:
    """Return the answers of a predictor for a clip of T frames at 25 frames per second."""
    stream = MotionStream(predictor, Timeline(rate=Fraction(25)), len(features))
    parts = [stream.push(0, features)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


def served_mouths(predictor: PersonPredictor, features: SpeechFeatures) -> Float32:
    """Return the mouths of a clip, float32 [T, 59, 3]."""
    return np.concatenate([part.mouth_landmarks for part in served_motion(predictor, features)])


def served_poses(predictor: PersonPredictor, features: SpeechFeatures) -> Float64:
    """Return the head-pose vectors of a clip, float64 [T, 6], from a predictor that moves the head."""
    return np.concatenate([part.poses for part in served_motion(predictor, features) if part.poses is not None])


class ServedPredictor:
    """The serving code as protocol.Predict."""

    def __init__(self, predictor: Predictor, models: MotionModels, constraints: ConstraintConfig | None) -> None:
        """`constraints`: None takes the predictor's constraints of live speech."""
        self._predictor, self._models, self._constraints = predictor, models, constraints
        self.frames, self.seconds = 0, 0.0

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Return mouths float32 [T, 59, 3]."""
        begin = time.perf_counter()
        mouths = served_mouths(self._predictor.open(self._models, style, self._constraints), features)
        self.frames += len(features)
        self.seconds += time.perf_counter() - begin
        return mouths


@dataclass(frozen=True, slots=True)
class ClipFold:
    """Enrolment and test part of a clip, as slices of its frames."""

    enrolment: slice
    test: slice


Encode = Callable[[TrainingClip, ClipFold], Style]
"""Function that measures the style of a clip's fold."""


def folds(num_frames: int) -> list[ClipFold]:
    """Return the folds of a clip.

    Clips under 4 s are enrolled on themselves: only the face's rest and amplitude come from the enrolment, no motion.
    """
    if num_frames < SHORT_CLIP_FRAMES:
        return [ClipFold(slice(0, num_frames), slice(0, num_frames))]
    if num_frames >= LONG_CLIP_FRAMES:
        return [ClipFold(slice(0, 250), slice(250, num_frames))]
    cut, back = int(num_frames * 0.6), int(num_frames * 0.4)
    return [ClipFold(slice(0, cut), slice(cut, num_frames)), ClipFold(slice(back, num_frames), slice(0, back))]


@dataclass(frozen=True, slots=True)
class ClipScores:
    """Scores over the test parts of one clip.

    Attributes:
        speaker: name of the speaker.
        scores: means over the test parts.
        wrong_audio: mean r of opening over ten wrong sounds; NaN: not measured.
        phones: true and predicted opening about the phones of the test parts, float64 [E, W] each, by the kind of phone
            (mouth_curves.around_phones).
        delay_ms: how much later than the true mouths the predicted ones open (delays.delay_ms); NaN: not measured.
    """

    name: str
    speaker: str
    scores: MotionScores
    wrong_audio: float
    phones: Mapping[Trigger, AroundPhones] = field(default_factory=dict)
    delay_ms: float = math.nan


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

    def encode(clip: TrainingClip, fold: ClipFold) -> Style:
        return encode_style(clip.mouth_landmarks[fold.enrolment], clip.usable[fold.enrolment], basis, encoder)

    return encode


def evaluate_clip(clip: TrainingClip, encode: Encode, predict: Predict, *, control: bool = True) -> ClipScores:
    """Evaluate the self-re-enactment of one clip's landmarks.

    Frame n is compared with the mouth that is predicted for the sound at n + clip.lag_fraction.

    Args:
        clip: tracked clip without lag.
        encode: measures the style of a fold.
        predict: the predictor under test.
        control: whether to predict from wrong sounds too.
    """
    return evaluate_parts(clip, styled_folds(clip, encode), predict, control=control)


StyledFolds = Sequence[tuple[ClipFold, Style]]
"""Folds of a clip, each with the style of its enrolment part."""


def styled_folds(clip: TrainingClip, encode: Encode) -> StyledFolds:
    """Return the folds of a clip with their styles."""
    return [(fold, encode(clip, fold)) for fold in folds(len(clip))]


def evaluate_parts(clip: TrainingClip, parts: StyledFolds, predict: Predict, *, control: bool = True) -> ClipScores:
    """Return the scores of a clip with given styles.

    The styles may come from the same clip without its lag, as an actor is enrolled, and the clip be as it was filmed
    (clips.as_filmed), as a viewer sees a dub.

    Args:
        clip: tracked clip.
        parts: folds and styles.
        predict: the predictor under test.
        control: whether to predict from wrong sounds too.
    """
    threshold = closed_threshold(mouth_opening(clip.mouth_landmarks[clip.usable]))
    scores, wrong = [], []
    around: dict[Trigger, list[AroundPhones]] = {kind: [] for kind in TRIGGERS}
    true_openings, delayed = [], []
    for fold, style in parts:
        truth, usable = clip.mouth_landmarks[fold.test], clip.usable[fold.test]
        # In a dub the sound before the test part is known too. So the whole clip is predicted, and the test part is kept.
        predicted = sampled(predict(clip.features, style), clip.lag_fraction)[fold.test]
        bilabial = bilabial_probability(clip.features)[fold.test]
        scores.append(score_motion(predicted, truth, style.mean_mouth, usable, bilabial, threshold))
        seconds = np.asarray((np.arange(len(truth)) + clip.lag_fraction) * MOTION_FRAME_S, np.float64)
        opening, result = (np.where(usable, mouth_opening(mouths), np.nan) for mouths in (truth, predicted))
        true_openings.append(opening)
        delayed.append(at_delays(result, seconds))
        for kind, phones in TRIGGERS.items():
            events = phone_times(clip.features.posteriorgram[fold.test], phones)
            around[kind].append((around_phones(opening, seconds, events), around_phones(result, seconds, events)))
        for sound in wrong_sounds(clip.features) if control else ():
            wrong_opening = mouth_opening(predict(sound, style)[fold.test])
            wrong.append(pearson(wrong_opening[usable], mouth_opening(truth)[usable]))
    return ClipScores(
        clip.name,
        clip.speaker,
        mean_scores(scores),
        fmean(wrong) if wrong else float("nan"),
        {kind: joined_phones(of_folds) for kind, of_folds in around.items()},
        delay_ms(np.concatenate(true_openings), np.concatenate(delayed, axis=1)),
    )


def joined_phones(parts: Sequence[AroundPhones]) -> AroundPhones:
    """Return the openings about the phones of several parts (at least one) together."""
    return np.concatenate([before for before, _ in parts]), np.concatenate([after for _, after in parts])


def phone_shift_ms(results: Sequence[ClipScores], kind: Trigger) -> float:
    """Return how much later than the true mouths the predicted ones reach the extreme of a phone, over all clips (shift_ms)."""
    return shift_ms(*joined_phones([result.phones[kind] for result in results]), kind)


def people_and_means(results: Sequence[ClipScores]) -> tuple[list[MotionScores], dict[str, float]]:
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


class NoStyleCode:
    """Style encoder for predictors that read no style code."""

    def encode(self, coefficients: np.ndarray) -> StyleCode:
        """Return an empty code and an empty modulation."""
        return StyleCode(np.zeros(0, np.float32), np.zeros(0, np.float32))


def groups_of(data: TrainSet, extra: Sequence[str] = (), *, filmed: bool = False) -> Groups:
    """Return the held-out clips by group. Empty groups are left out.

    Args:
        data: the training set. Each split besides `train` and `val` has a group.
        extra: further tensors of the sound to read (types.EXTRA_FEATURES).
        filmed: whether the lags stay (clips.as_filmed).
    """
    trained = {row.speaker for row in data.rows if row.split == "train"}
    rows = [row for row in data.rows if row.split != "train" and row.has_face and shows_the_mouth(row)]
    held_out = clips_of_rows(data, rows, extra, filmed=filmed)
    val = [row for row in held_out.rows if row.split == "val"]
    groups = {
        "known": held_out.only(row for row in val if row.speaker in trained),
        "new": held_out.only(row for row in val if row.speaker not in trained),
    }
    for split in sorted({row.split for row in held_out.rows} - {"val"}):
        groups[split] = held_out.only(row for row in held_out.rows if row.split == split)
    return {name: clips for name, clips in groups.items() if len(clips)}


def checked_groups(data: TrainSet, extra: Sequence[str] = ()) -> Groups:
    """Return the groups for the checks of a training: few clips, all of which can be scored.

    A set without clips of the split `val` has no group to select on; its training keeps the last step (may_choose).

    Raises:
        InvalidRequestError: there are clips of the split `val`, and none of them can be scored.
    """
    few = {name: clips.evenly(MAX_CLIPS) for name, clips in groups_of(data, extra).items()}
    groups = {name: scorable for name, clips in few.items() if len(scorable := _scorable(clips))}
    if any(row.split == "val" and row.has_face for row in data.rows) and not set(groups) & set(SELECTED_ON):
        raise InvalidRequestError(
            f"{data.folder}: no clip of split 'val' shows the mouth long enough to be scored; add clips of at least 2 s",
            field="data",
        )
    return groups


def may_choose(groups: Groups) -> bool:
    """Return whether groups of clips may choose the best step: they hold a clip that is not of a narrow corpus.

    What holds in a narrow corpus alone is learned apart and not served. So the served network's scores on such clips do not say
    which step is best for other footage, and the last step is as good a choice.
    """
    return any(not row.narrow for name in SELECTED_ON if name in groups for row in groups[name].rows)


def _scorable(clips: Clips) -> Clips:
    """Return the clips that show the mouth long enough in both parts of each fold."""

    def fits(clip: TrainingClip) -> bool:
        return all(
            clip.usable[fold.enrolment].sum() >= MIN_FRAMES and clip.usable[fold.test].sum() >= _MIN_TEST_FRAMES
            for fold in folds(len(clip))
        )

    return clips.only(row for row, clip in zip(clips.rows, clips, strict=True) if fits(clip))


def summary(results: list[ClipScores]) -> dict[str, float]:
    """Return the means over clips."""
    scores = mean_scores([result.scores for result in results], by_frames=False)
    return {
        "r_opening": scores.opening_correlation,
        "r_width": scores.width_correlation,
        "lmd_ratio": scores.lip_distance / scores.mean_mouth_distance,
        "spread": scores.spread_ratio,
        "step": scores.step_ratio,
        "closure": scores.closure_hits / max(1, scores.closure_events),
    }


def scores_by_group(groups: Groups, basis: LandmarkBasis, encoder: StyleNetwork, predict: Predict) -> Scores:
    """Return the summary of each group.

    Args:
        groups: clips by group.
        basis: landmark basis of the style.
        predict: the predictor under test.
    """
    encode = encoded_mouths(basis, encoder)
    return {
        name: summary([evaluate_clip(clip, encode, predict, control=False) for clip in members]) for name, members in groups.items()
    }


def selection_score(scores: Scores) -> float:
    """Return the number to select on: r of opening and of width, less the excess of distance, mean over groups."""
    return fmean(s["r_opening"] + 0.5 * s["r_width"] - 0.5 * s["lmd_ratio"] for s in scores.values())


def selected_on(scores: Scores) -> Scores:
    """Return the scores of the groups that the best step is selected on."""
    return {name: score for name, score in scores.items() if name in SELECTED_ON}


def named_scores(scores: Scores) -> dict[str, float]:
    """Return the scores as figures by name: `GROUP SCORE`."""
    return {f"{group} {name}": value for group, values in scores.items() for name, value in values.items()}
