"""Self-re-enactment: personalise on one part of a clip, dub the other with its own sound, compare with the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol

import numpy as np

from gateway.evaluation.aggregate import BootstrapSettings, score
from gateway.evaluation.bilabials import bilabial_times
from gateway.evaluation.expression import PersonFace
from gateway.evaluation.folds import MIN_WRONG_SPEECHES, folds_of, wrong_speeches
from gateway.evaluation.head_scores import score_heads
from gateway.evaluation.kept import Keeper
from gateway.evaluation.measures import RunMeasures, TruthPiece, join_pieces, measure_piece, truth_piece
from gateway.evaluation.mouth_metrics import Closures, closures
from gateway.evaluation.types import (
    VARIANTS,
    ClipResult,
    Float64,
    Fold,
    FoldResult,
    FrameRange,
    Handle,
    HeadMotion,
    Rendered,
    Retrack,
    SelfReenactment,
    Speech,
    SyncDistance,
    Uint8,
    Variant,
)

MOTION_FRAME_S: Final = 0.04
"""Unit of the lag, seconds."""


class PerceptualDistance(Protocol):
    """LPIPS and FID by networks that the user supplies (perceptual.py)."""

    def add(self, truth: Uint8, result: Uint8) -> None:
        """Take in frames of truth and result, uint8 [T, 256, 256, 3] each."""
        ...

    def values(self) -> Mapping[str, float]:
        """`lpips` and `fid` of all frames so far; those that the supplied networks allow."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """How to evaluate.

    Attributes:
        variants: what to render.
        wrong_count: foreign speeches a fold for wrong_audio, at least 10.
        piece_frames: frames that are rendered, tracked and measured at once; bounds memory.
        bootstrap: of the intervals.
        sample_count: pictures kept a variant for the report; 0 keeps nothing for reports.
        video_frames: most frames kept for the side-by-side video.
    """

    variants: tuple[Variant, ...] = VARIANTS
    wrong_count: int = MIN_WRONG_SPEECHES
    piece_frames: int = 250
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    sample_count: int = 8
    video_frames: int = 250


Progress = Callable[[str, int, int], None]
"""Called with the variant at work, variant-frames done so far and variant-frames in all (a speech counts as one)."""


def pieces_of(frames: FrameRange, length: int) -> Iterator[FrameRange]:
    """Consecutive ranges of at most `length` frames."""
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
    """Evaluate the method on one clip.

    Args:
        session: the clip with the method under test.
        retrack: face tracker on crops.
        settings: what to render and how to measure.
        transcript: what is said in the clip; without it there is no closure.
        other_speeches: foreign speech for wrong_audio; circular shifts of the clip's own fill up to `wrong_count`.
        sync_distance: distance of mouth and sound by a sync network.
        perceptual: makes an accumulator of LPIPS and FID for one variant.
        progress: told of each piece.

    Raises:
        InvalidRequest: the clip is too short, or the transcript can't be aligned.
        NoUsableFootage: an enrolment part without a usable face.
    """
    settings = settings or EvaluationSettings()
    evaluation = _Evaluation(session, retrack, settings, sync_distance, perceptual, progress)
    if transcript:
        evaluation.events_s = bilabial_times(session.speech, transcript)
    folds = folds_of(session.num_frames, session.frame_rate)
    speeches: dict[Variant, tuple[Speech | None, ...]] = dict.fromkeys(settings.variants, (None,))
    if "wrong_audio" in speeches:
        speeches["wrong_audio"] = wrong_speeches(session.speech, other_speeches, settings.wrong_count)
    evaluation.work = sum(len(fold.test) for fold in folds) * sum(len(of) for of in speeches.values())

    keeper = Keeper(folds[0].test, settings.sample_count, settings.video_frames)
    runs: dict[Variant, list[RunMeasures]] = {variant: [] for variant in settings.variants}
    fold_results: list[FoldResult] = []
    heads: list[HeadMotion] = []
    for fold in folds:
        actor = session.enrol(fold.enrol)
        fold_results.append(FoldResult(fold, actor.lag_frames))
        for variant, measured in evaluation.fold(actor, fold, speeches, keeper if fold is folds[0] else None).items():
            runs[variant].extend(measured)
        head = session.head_motion(actor, fold.test)
        if head is not None:
            heads.append(head)

    scores = {variant: score(of, len(speeches[variant]), settings.bootstrap) for variant, of in runs.items()}
    for variant, accumulator in evaluation.perceptual.items():
        paper = dict(scores[variant].paper) | dict(accumulator.values())
        scores[variant] = dataclasses.replace(scores[variant], paper=paper)
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
        video=keeper.video(),
    )


class _Evaluation(Generic[Handle]):
    """The loop over pieces, variants and speeches; pieces are outermost, so that only one is in memory."""

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
        """All runs of one fold: a list a variant, one run a speech."""
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
                    rendered = self._session.render(actor, frames, variant, speech)
                    keep = keeper if index == 0 else None
                    pieces[variant][index].append(self._measure(variant, frames, truth, rendered, speech, keep, index))
        return {
            variant: [join_pieces(run, self._closures(run, fold.test, actor.lag_frames)) for run in of]
            for variant, of in pieces.items()
        }

    def _person(self, enrol: FrameRange) -> PersonFace | None:
        """The face of the clip's person, from the first piece of an enrolment part."""
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
        keeper: Keeper | None,
        index: int,
    ) -> RunMeasures:
        landmarks = self._retrack(rendered.crops)
        measures = measure_piece(truth, rendered, landmarks)
        if self._sync_distance is not None:
            distance = self._sync_distance(landmarks, frames, speech)
            measures = dataclasses.replace(measures, extras=dict(measures.extras) | {"sync_distance": distance})
        if variant in self.perceptual and index == 0:
            self.perceptual[variant].add(truth.crops[measures.measured], rendered.crops[measures.measured])
        if keeper is not None:
            keeper.add(variant, frames, rendered, landmarks)
        self._done += len(frames)
        if self._progress is not None:
            self._progress(variant, self._done, self.work)
        return measures

    def _closures(self, pieces: Sequence[RunMeasures], test: FrameRange, lag_frames: int) -> Closures | None:
        if self.events_s is None:
            return None
        shown_s = np.arange(test.start, test.stop) / float(self._session.frame_rate)
        return closures(
            np.concatenate([piece.truth_opening for piece in pieces]),
            np.concatenate([piece.result_opening for piece in pieces]),
            shown_s + lag_frames * MOTION_FRAME_S,  # what is seen at t is heard at t + lag
            self.events_s,
        )
