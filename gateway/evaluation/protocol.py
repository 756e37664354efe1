"""Self-re-enactment: enrol the person on one part of a clip, dub the rest with its own sound, compare with the real film."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol

import numpy as np

from gateway.evaluation.aggregate import BootstrapSettings, score
from gateway.evaluation.bilabials import bilabial_times
from gateway.evaluation.cost import CostMeter
from gateway.evaluation.expression import PersonFace
from gateway.evaluation.folds import MIN_WRONG_SPEECHES, folds_of, wrong_speeches
from gateway.evaluation.head_scores import score_heads
from gateway.evaluation.image_metrics import finite_mean
from gateway.evaluation.kept import Keeper
from gateway.evaluation.measures import RunMeasures, TruthPiece, join_pieces, measure_piece, truth_piece, with_phones
from gateway.evaluation.mouth_metrics import Closures, closures
from gateway.evaluation.types import (
    DEFAULT_VARIANTS,
    WRONG_AUDIO,
    ClipResult,
    Fold,
    FoldResult,
    FramedMotion,
    FrameRange,
    Handle,
    HeadMotion,
    Rendered,
    Retrack,
    SelfReenactment,
    Speech,
    SyncDistance,
    Variant,
    VariantScores,
)
from services.common.array_types import Float64, UInt8
from services.common.wire.mouth_curves import MOTION_FRAME_S, rest_and_range, silence_opening


class PerceptualDistance(Protocol):
    """LPIPS and FID by networks that the user supplies (perceptual.py)."""

    def add(self, truth: UInt8, result: UInt8) -> None:
        """Add frames of the real film and of the result, uint8 [T, 256, 256, 3] each."""
        ...

    def values(self) -> Mapping[str, float]:
        """Return `lpips` and `fid` of all frames so far, each only if the user supplied its network."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        variants: variants to render.
        wrong_count: foreign speeches per fold for wrong_audio and wrong_audio_kept, at least 10.
        piece_frames: frames that are rendered, tracked and measured together; bounds memory.
        bootstrap: settings of the confidence intervals.
        sample_count: pictures per variant that are kept for the report; 0: nothing is kept for reports.
        video_frames: most frames that are kept for the side-by-side video.
        enrol_seconds: seconds of each enrolment part; None: as folds_of splits a clip.
        only_fold: number of the only fold to evaluate, from 0; None: all. One fold halves the time that a short clip takes, and the
            scores come from the test part of this fold alone.
    """

    variants: tuple[Variant, ...] = DEFAULT_VARIANTS
    wrong_count: int = MIN_WRONG_SPEECHES
    piece_frames: int = 250
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    sample_count: int = 8
    video_frames: int = 250
    enrol_seconds: float | None = None
    only_fold: int | None = None


Progress = Callable[[str, int, int], None]
"""Called with the current variant, the number of finished frames, and the number of all frames, counted per variant and speech."""


def pieces_of(frames: FrameRange, length: int) -> Iterator[FrameRange]:
    """Yield consecutive ranges of at most `length` frames."""
    for start in range(frames.start, frames.stop, length):
        yield FrameRange(start, min(start + length, frames.stop))


def evaluate_clip(
    session: SelfReenactment[Handle],
    retrack: Retrack,
    *,
    settings: EvaluationSettings | None = None,
    transcript: str = "",
    other_speeches: Sequence[Speech] = (),
    sync_distance: SyncDistance | None = None,
    perceptual: Callable[[], PerceptualDistance] | None = None,
    progress: Progress | None = None,
) -> ClipResult:
    """Evaluate the method on one clip, and return the scores.

    Args:
        session: the clip with the method under test.
        retrack: face tracker for crops.
        settings: what to render and how to measure; None: the defaults.
        transcript: words that are said in the clip; empty: the closure of the lips is not measured.
        other_speeches: foreign speech for WRONG_AUDIO. Circular shifts of the clip's own speech fill up to `wrong_count`.
        sync_distance: returns the distance of mouth and sound by a sync network; None: not measured.
        perceptual: makes an accumulator of LPIPS and FID for one variant; None: not measured.
        progress: called with each piece.

    Raises:
        InvalidRequest: the clip is too short, has no fold of the given number, or the transcript cannot be aligned.
        NoUsableFootage: an enrolment part has no usable face.
    """
    settings = settings or EvaluationSettings()
    evaluation = _Evaluation(session, retrack, settings, sync_distance, perceptual, progress)
    if transcript:
        evaluation.events_s = bilabial_times(session.speech, transcript)
    folds = folds_of(session.num_frames, session.frame_rate, settings.enrol_seconds, only=settings.only_fold)
    speeches: dict[Variant, tuple[Speech | None, ...]] = dict.fromkeys(settings.variants, (None,))
    for variant in WRONG_AUDIO:
        if variant in speeches:
            speeches[variant] = wrong_speeches(session.speech, other_speeches, settings.wrong_count)
    evaluation.work = sum(len(fold.test) for fold in folds) * sum(len(of) for of in speeches.values())

    keeper = Keeper(folds[0].test, settings.sample_count, settings.video_frames)
    runs: dict[Variant, list[RunMeasures]] = {variant: [] for variant in settings.variants}
    fold_results: list[FoldResult] = []
    heads: list[HeadMotion] = []
    for fold in folds:
        with evaluation.cost.enrolling():
            actor = session.enrol(fold.enrol)
        evaluation.cost.learned(actor.num_bytes)
        fold_results.append(FoldResult(fold, actor.lag_frames, actor.lag_doubt))
        for variant, measured in evaluation.fold(actor, fold, speeches, keeper if fold is folds[0] else None).items():
            runs[variant].extend(measured)
        head = session.head_motion(actor, fold.test)
        if head is not None:
            heads.append(head)

    scores = {variant: score(of, len(speeches[variant]), settings.bootstrap) for variant, of in runs.items()}
    for variant, accumulator in evaluation.perceptual.items():
        paper = dict(scores[variant].paper) | dict(accumulator.values())
        scores[variant] = dataclasses.replace(scores[variant], paper=paper)
    scores |= _with_silence(scores, evaluation.silences)
    head_motion = score_heads(heads, float(session.frame_rate), folds[0].test.start) if heads else None
    if head_motion is not None and "full" in scores:
        paper = dict(scores["full"].paper) | dict(head_motion.scores["output"])
        scores["full"] = dataclasses.replace(scores["full"], paper=paper)
    samples = {variant: keeper.sample(variant) for variant in settings.variants}
    return ClipResult(
        clip=session.clip,
        frame_rate=session.frame_rate,
        lag_frames=max(fold_results, key=lambda result: len(result.fold.enrol)).lag_frames,
        folds=tuple(fold_results),
        variants=scores,
        sample_frames=keeper.frames,
        truth=keeper.sample(None),
        samples={variant: sample for variant, sample in samples.items() if sample is not None},
        head_motion=head_motion,
        cost=evaluation.cost.figures(),
        video=keeper.video(),
    )


def _with_silence(scores: Mapping[Variant, VariantScores], silences: Sequence[float]) -> dict[Variant, VariantScores]:
    """Return the scores of `full` with the mean opening in silence over the folds; nothing if `full` was not rendered."""
    if "full" not in scores:
        return {}
    metrics = dict(scores["full"].metrics) | {"silence_opening": finite_mean(np.array(silences))}
    return {"full": dataclasses.replace(scores["full"], metrics=metrics)}


def _silence_opening(framed: FramedMotion) -> float:
    rest, extent = rest_and_range(framed.own_opening)
    return silence_opening(framed.opening, framed.spoken, MOTION_FRAME_S, rest=rest, extent=extent)


class _Evaluation(Generic[Handle]):
    """Loop over pieces, variants and speeches. The loop over pieces is outermost, so that only one piece is in memory."""

    def __init__(
        self,
        session: SelfReenactment[Handle],
        retrack: Retrack,
        settings: EvaluationSettings,
        sync_distance: SyncDistance | None,
        perceptual: Callable[[], PerceptualDistance] | None,
        progress: Progress | None,
    ) -> None:
        self._session = session
        self._retrack = retrack
        self._settings = settings
        self._sync_distance = sync_distance
        self._progress = progress
        self._done = 0
        self.work = 0
        self.events_s: Float64 | None = None
        self.cost = CostMeter()
        self.silences: list[float] = []
        self._phones = session.phone_times()
        self.perceptual: dict[Variant, PerceptualDistance] = (
            {} if perceptual is None else {variant: perceptual() for variant in settings.variants}
        )

    def fold(
        self,
        actor: Handle,
        fold: Fold,
        speeches: Mapping[Variant, Sequence[Speech | None]],
        keeper: Keeper | None,
    ) -> dict[Variant, list[RunMeasures]]:
        """Return all runs of one fold: a list per variant, with one run per speech."""
        if "full" in speeches:
            self.silences.append(_silence_opening(self._session.framed_motion(actor, fold.test)))
        pieces: dict[Variant, list[list[RunMeasures]]] = {name: [[] for _ in of] for name, of in speeches.items()}
        person = self._person(fold.enrol)
        for frames in pieces_of(fold.test, self._settings.piece_frames):
            shown = self._session.truth(frames)
            landmarks = self._retrack(shown.crops)
            truth = truth_piece(shown, landmarks, person)
            if keeper is not None:
                keeper.add(None, frames, shown, landmarks)
            for variant, of in speeches.items():
                for index, speech in enumerate(of):
                    with self.cost.rendering(len(frames) if variant == "full" else 0):
                        rendered = self._session.render(actor, frames, variant, speech)
                    keep = keeper if index == 0 else None
                    measures = self._measure(variant, frames, truth, rendered, speech, keeper=keep)
                    if index == 0 and variant in self.perceptual:
                        shown_frames = measures.measured
                        self.perceptual[variant].add(truth.crops[shown_frames], rendered.crops[shown_frames])
                    pieces[variant][index].append(measures)
        return {variant: [self._joined(run, variant, actor.lag_frames, fold.test) for run in of] for variant, of in pieces.items()}

    def _joined(self, pieces: list[RunMeasures], variant: Variant, lag_frames: int, test: FrameRange) -> RunMeasures:
        # The mouth at time t belongs to the sound at time t + lag.
        seconds = self._session.frame_seconds[test.start : test.stop] + lag_frames * MOTION_FRAME_S
        run = join_pieces(pieces, float(1 / self._session.frame_rate), self._closures(pieces, seconds))
        return run if variant in WRONG_AUDIO else with_phones(run, seconds, self._phones)

    def _person(self, enrol: FrameRange) -> PersonFace | None:
        """Return the face of the clip's person, from the first piece of an enrolment part."""
        shown = self._session.truth(next(pieces_of(enrol, self._settings.piece_frames)))
        landmarks = self._retrack(shown.crops).copy()
        landmarks[[reason != "" for reason in shown.reasons]] = np.nan
        return PersonFace.measured(landmarks)

    def _measure(
        self,
        variant: Variant,
        frames: FrameRange,
        truth: TruthPiece,
        rendered: Rendered,
        speech: Speech | None,
        *,
        keeper: Keeper | None,
    ) -> RunMeasures:
        landmarks = self._retrack(rendered.crops)
        measures = measure_piece(truth, rendered, landmarks)
        if self._sync_distance is not None:
            distance = self._sync_distance(landmarks, frames, speech)
            measures = dataclasses.replace(measures, extras=dict(measures.extras) | {"sync_distance": distance})
        if keeper is not None:
            keeper.add(variant, frames, rendered, landmarks)
        self._done += len(frames)
        if self._progress is not None:
            self._progress(variant, self._done, self.work)
        return measures

    def _closures(self, pieces: Sequence[RunMeasures], seconds: Float64) -> Closures | None:
        if self.events_s is None:
            return None
        return closures(
            np.concatenate([piece.truth_opening for piece in pieces]),
            np.concatenate([piece.result_opening for piece in pieces]),
            seconds,
            self.events_s,
        )
