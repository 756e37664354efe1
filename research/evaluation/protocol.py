"""Self-re-enactment: enrol the person on one part of a clip, dub the rest with its own sound, compare with the real video.

The module splits a clip into an enrolment part and a test part, and chooses the foreign speeches of the wrong-audio control.
Pictures and curves that a report shows are kept. All other pictures are measured and dropped.

Time is judged as a viewer sees it: the speech of the clip is used at its own time, and the result is compared with the real video
frame by frame. Only `full_aligned` takes the measured lag out before it compares.

The cost of a method on one clip is: time to learn the person, time per frame, memory, and size of the actor.

Wall time holds for the machine, its load, and the settings of threads. Processor time is that of this process with all its threads,
and hardly depends on the load. Peak memory is the largest resident set of
this process while it enrols and while it renders `full`. The process includes the stages unless they run behind gRPC, and it holds
the pictures of the clip that the evaluation compares with. Where the kernel cannot begin a new peak, the peak is not measured.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol

import numpy as np

from gateway.reports.appearance import OwnMouth
from research.evaluation.aggregate import BootstrapSettings, score
from research.evaluation.bilabials import bilabial_times
from research.evaluation.head_motion import score_heads
from research.evaluation.measures import (
    PersonFace,
    RunMeasures,
    TruthPiece,
    finite_mean,
    join_pieces,
    measure_piece,
    own_mouth,
    truth_piece,
    with_phones,
)
from research.evaluation.mouth_metrics import Closures, closures, mouth_track
from research.evaluation.strips import busiest_frames, strip_of
from research.evaluation.types import (
    COSTS,
    DEFAULT_VARIANTS,
    WRONG_AUDIO,
    ClipResult,
    EvaluatedSpeech,
    FaceDistance,
    Fold,
    FoldResult,
    FramedMotion,
    FrameRange,
    Handle,
    HeadMotion,
    Rendered,
    Retrack,
    SelfReenactment,
    SyncDistance,
    Variant,
    VariantSample,
    VariantScores,
)
from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import CROP_SIZE
from services.common.wire.mouth_curves import MOTION_FRAME_S, rest_and_range, silence_opening

FACE_FRAMES: Final = 8
"""Frames of a piece whose faces are compared with the truth's."""
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
_KIB: Final = 1024.0
SHORT_CLIP_S: Final = 17
"""Clips under this length, seconds, have two folds, because ten seconds of enrolment would leave too little to test on."""
ENROL_SHARE: Final = Fraction(3, 5)
ENROL_S: Final = 10
TEST_SHARE: Final = Fraction(1, 5)
"""Share of a clip, at its end, that is tested on if the seconds of enrolment are given."""
MIN_FRAMES: Final = 10
"""Fewest frames of each part."""
MIN_WRONG_SPEECHES: Final = 10
NEAREST_SHIFT: Final = 11_200
"""Smallest circular shift, samples: 0.7 s, because a lag is searched within 0.6 s of the true alignment."""
Progress = Callable[[str, int, int], None]
"""Called with the current variant, the number of finished frames, and the number of all frames, counted per variant and speech."""


def sample_frames(test: FrameRange, count: int) -> tuple[int, ...]:
    """Return `count` frames spread evenly over a test part, or all frames of a shorter part."""
    count = min(count, len(test))
    return tuple(int(test.start + (2 * k + 1) * len(test) // (2 * count)) for k in range(count))


class SampleCollector:
    """Collector of what reports show of the truth and of each variant on one fold."""

    def __init__(self, test: FrameRange, sample_count: int, video_frames: int) -> None:
        self.frames = sample_frames(test, sample_count)
        self._video_stop = test.start + video_frames
        self._crops: dict[str, list[UInt8]] = {}
        self._opening: dict[str, list[Float32]] = {}
        self._commanded: dict[str, list[Float32]] = {}
        self._left: list[UInt8] = []
        self._right: list[UInt8] = []

    def add(self, name: Variant | None, frames: FrameRange, rendered: Rendered, landmarks: Float32) -> None:
        """Add one piece of a variant, or of the truth if `name` is None."""
        if not self.frames:
            return
        key = name or ""
        wanted = [frame - frames.start for frame in self.frames if frames.start <= frame < frames.stop]
        self._crops.setdefault(key, []).append(rendered.crops[wanted].copy())
        self._opening.setdefault(key, []).append(mouth_track(landmarks).opening)
        if rendered.commanded is not None:
            self._commanded.setdefault(key, []).append(rendered.commanded.astype(np.float32))
        if name in {None, "full"} and frames.start < self._video_stop:
            shown = rendered.crops[: self._video_stop - frames.start].copy()
            (self._left if name is None else self._right).append(shown)

    def sample(self, name: Variant | None) -> VariantSample | None:
        """Return what reports show of a variant, or of the truth if `name` is None."""
        key = name or ""
        if key not in self._crops:
            return None
        commanded = self._commanded.get(key)
        return VariantSample(
            crops=np.concatenate(self._crops[key]),
            opening=np.concatenate(self._opening[key]),
            commanded=None if commanded is None else np.concatenate(commanded),
        )

    def video(self) -> UInt8:
        """Return truth beside `full`, uint8 [V, 256, 512, 3]; V is 0 if `full` was not rendered."""
        if not self._left or not self._right:
            return np.zeros((0, CROP_SIZE, 2 * CROP_SIZE, 3), np.uint8)
        return np.concatenate([np.concatenate(self._left), np.concatenate(self._right)], axis=2)


class _ProcessCost(NamedTuple):
    """Wall time and processor time, seconds."""

    wall_s: float
    cpu_s: float


class _Begin(NamedTuple):
    """Clocks at the begin of what is measured, and whether a new peak of memory began there."""

    wall_s: float
    cpu_s: float
    new_peak: bool


def _sum(first: _ProcessCost, second: _ProcessCost) -> _ProcessCost:
    return _ProcessCost(first.wall_s + second.wall_s, first.cpu_s + second.cpu_s)


class CostMeter:
    """Stopwatch of the enrolments and of the variant `full` of one clip."""

    def __init__(self) -> None:
        self._enrolments: list[_ProcessCost] = []
        self._predicting = self._rendering = _ProcessCost(0.0, 0.0)
        self._predicted_frames = self._frames = 0
        self._peak_mib = float("nan")
        self._actor_bytes: list[int] = []

    def learned(self, num_bytes: int) -> None:
        """Count the bytes of an enrolled actor."""
        self._actor_bytes.append(num_bytes)

    @contextmanager
    def enrolling(self) -> Iterator[None]:
        """Measure one enrolment with all that it adapts."""
        begin = self._begin()
        yield
        self._enrolments.append(self._spent_since(begin))

    @contextmanager
    def predicting(self, num_frames: int) -> Iterator[None]:
        """Measure the features of the sound and the motion of frames of `full`."""
        begin = self._begin()
        yield
        self._predicting = _sum(self._predicting, self._spent_since(begin))
        self._predicted_frames += num_frames

    @contextmanager
    def rendering(self, num_frames: int) -> Iterator[None]:
        """Measure texture and renderer of frames of `full`; 0 frames: not measured."""
        if not num_frames:
            yield
            return
        begin = self._begin()
        yield
        self._rendering = _sum(self._rendering, self._spent_since(begin))
        self._frames += num_frames

    def metrics(self) -> dict[str, float]:
        """Return COSTS: means an enrolment (seconds), a frame of `full` (milliseconds), and MiB; NaN where not measured."""
        enrolments, frames, predicted = len(self._enrolments), self._frames, self._predicted_frames
        values = (
            _share(sum(each.wall_s for each in self._enrolments), enrolments),
            _share(sum(each.cpu_s for each in self._enrolments), enrolments),
            _share(1000.0 * self._predicting.wall_s, predicted) + _share(1000.0 * self._rendering.wall_s, frames),
            _share(1000.0 * self._predicting.cpu_s, predicted) + _share(1000.0 * self._rendering.cpu_s, frames),
            self._peak_mib,
            _share(sum(self._actor_bytes) / _KIB**2, len(self._actor_bytes)),
        )
        return dict(zip(COSTS, values, strict=True))

    def _begin(self) -> _Begin:
        new_peak = _forget_peak()
        return _Begin(time.perf_counter(), time.process_time(), new_peak)

    def _spent_since(self, begin: _Begin) -> _ProcessCost:
        spent = _ProcessCost(time.perf_counter() - begin.wall_s, time.process_time() - begin.cpu_s)
        if begin.new_peak:
            # max() keeps its first argument if a comparison with NaN is false.
            self._peak_mib = max(_peak_mib(), self._peak_mib)
        return spent


def _share(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _forget_peak() -> bool:
    """Begin a new peak of the resident set. False: the kernel cannot, and its peak is that of all since the process began.

    Such a peak may be that of another clip or method. So it is not measured for this one.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _peak_mib() -> float:
    """Return the largest resident set, MiB; NaN where the kernel does not say it."""
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return float("nan")
    return int(match[1]) / _KIB if match else float("nan")


def folds_of(
    num_frames: int, frame_rate: Fraction, enrol_seconds: float | None = None, *, only: int | None = None
) -> tuple[Fold, ...]:
    """Return the splits of a clip.

    A clip under 17 s has two folds with equal parts: enrol on the first 60 % and test on the last 40 %, and enrol on the last 60 %
    and test on the first 40 %. A longer clip has one fold: enrol on the first 10 s and test on the rest. The judge of motion
    predictors splits clips in the same way (research.motion.protocol.folds).

    With `enrol_seconds` there is one fold: test on the last fifth, and enrol on the seconds before the test part. So all lengths of
    enrolment are tested on the same frames, and none lies further from the test part than another.

    Args:
        frame_rate: frames per second.
        enrol_seconds: seconds of the enrolment part; None: as above.
        only: number of the only split to return, from 0; None: all.

    Raises:
        InvalidRequestError: the clip is too short to be split, or has no split of the number `only`.
    """
    if enrol_seconds is not None:
        cut = num_frames - int(num_frames * TEST_SHARE)
        wanted = round(enrol_seconds * frame_rate)
        if wanted > cut:
            raise InvalidRequestError(
                f"{enrol_seconds:g} s of enrolment are more than the {float(cut / frame_rate):.1f} s of the clip before its last "
                "fifth, which is tested on",
                field="enrol_seconds",
            )
        folds: tuple[Fold, ...] = (Fold(enrol=FrameRange(cut - wanted, cut), test=FrameRange(cut, num_frames)),)
    elif num_frames < SHORT_CLIP_S * frame_rate:
        cut, back = int(num_frames * ENROL_SHARE), int(num_frames * (1 - ENROL_SHARE))
        folds = (
            Fold(enrol=FrameRange(0, cut), test=FrameRange(cut, num_frames)),
            Fold(enrol=FrameRange(back, num_frames), test=FrameRange(0, back)),
        )
    else:
        cut = int(ENROL_S * frame_rate)
        folds = (Fold(enrol=FrameRange(0, cut), test=FrameRange(cut, num_frames)),)
    if min(len(part) for fold in folds for part in (fold.enrol, fold.test)) < MIN_FRAMES:
        raise InvalidRequestError(
            f"{num_frames} frames are too few to evaluate on: each part of a clip needs {MIN_FRAMES}", field="CLIP"
        )
    if only is None:
        return folds
    if not 0 <= only < len(folds):
        raise InvalidRequestError(f"fold {only}: this clip has {len(folds)}, numbered from 0", field="fold")
    return (folds[only],)


def wrong_speeches(own: Float32, count: int = MIN_WRONG_SPEECHES) -> tuple[EvaluatedSpeech, ...]:
    """Return speeches whose sound does not fit the clip: circular shifts of the clip's own speech, spread evenly over its length.

    Args:
        own: float32 [N], 16 kHz mono.
        count: number of speeches, at least 10.

    Raises:
        InvalidRequestError: fewer than 10 are asked for, or the speech is empty.
    """
    if count < MIN_WRONG_SPEECHES:
        raise InvalidRequestError(f"the wrong-audio control is a mean over at least {MIN_WRONG_SPEECHES}", field="count")
    if not len(own):
        raise InvalidRequestError("a speech has no samples", field="speech")
    nearest = min(NEAREST_SHIFT, len(own) // 3)
    shifts = np.linspace(nearest, len(own) - nearest, count).astype(int).tolist()
    return tuple(EvaluatedSpeech(f"shifted by {shift / 16_000:.2f} s", np.roll(own, shift)) for shift in shifts)


class PerceptualDistance(Protocol):
    """LPIPS and FID by networks that the user supplies (perceptual.py)."""

    def add(self, truth: UInt8, result: UInt8) -> None:
        """Add frames of the real video and of the result, uint8 [T, 256, 256, 3] each."""
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
        strips: whether strips of each variant on the first fold are kept (strips.py).
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
    strips: bool = False


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
    sync_distance: SyncDistance | None = None,
    face_distance: FaceDistance | None = None,
    perceptual: Callable[[], PerceptualDistance] | None = None,
    progress: Progress | None = None,
) -> ClipResult:
    """Evaluate the method on one clip, and return the scores.

    Args:
        session: the clip with the method under test.
        retrack: face tracker for crops.
        settings: what to render and how to measure; None: the defaults.
        transcript: words that are said in the clip; empty: the closure of the lips is not measured.
        sync_distance: returns the distance of mouth and sound by a sync network; None: not measured.
        face_distance: returns the distance of the faces of truth and result; None: not measured.
        perceptual: makes an accumulator of LPIPS and FID for one variant; None: not measured.
        progress: called with each piece.

    Raises:
        InvalidRequestError: the clip is too short, has no fold of the given number, or the transcript cannot be aligned.
        NoUsableFootageError: an enrolment part has no usable face.
    """
    settings = settings or EvaluationSettings()
    evaluation = _Evaluation(session, retrack, settings, sync_distance, face_distance, perceptual, progress)
    if transcript:
        evaluation.events_s = bilabial_times(session.speech, transcript)
    folds = folds_of(session.num_frames, session.frame_rate, settings.enrol_seconds, only=settings.only_fold)
    speeches: dict[Variant, tuple[EvaluatedSpeech | None, ...]] = dict.fromkeys(settings.variants, (None,))
    for variant in WRONG_AUDIO:
        if variant in speeches:
            speeches[variant] = wrong_speeches(session.speech, settings.wrong_count)
    evaluation.work = sum(len(fold.test) for fold in folds) * sum(len(of) for of in speeches.values())

    keeper = SampleCollector(folds[0].test, settings.sample_count, settings.video_frames)
    runs: dict[Variant, list[RunMeasures]] = {variant: [] for variant in settings.variants}
    fold_results: list[FoldResult] = []
    heads: list[HeadMotion] = []
    strips: dict[Variant, UInt8] = {}
    for fold in folds:
        with evaluation.cost.enrolling():
            actor = session.enrol(fold.enrol)
        evaluation.cost.learned(actor.num_bytes)
        fold_results.append(FoldResult(fold, actor.lag_frames, actor.lag_doubt))
        for variant, measured in evaluation.fold(actor, fold, speeches, keeper if fold is folds[0] else None).items():
            runs[variant].extend(measured)
        if settings.strips and fold is folds[0]:
            strips = _strips(session, actor, fold, runs, speeches)
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
        cost=evaluation.cost.metrics(),
        strips=strips,
        video=keeper.video(),
    )


def _strips(
    session: SelfReenactment[Handle],
    actor: Handle,
    fold: Fold,
    runs: Mapping[Variant, Sequence[RunMeasures]],
    speeches: Mapping[Variant, Sequence[EvaluatedSpeech | None]],
) -> dict[Variant, UInt8]:
    """Return a strip of each variant on one fold; nothing if too few consecutive frames are measured."""
    strips: dict[Variant, UInt8] = {}
    for variant, of in runs.items():
        # Every variant has the same measured frames, and so the same strip of the real video.
        busiest = busiest_frames(of[0].truth_opening)
        if busiest is not None:
            frames = FrameRange(fold.test.start + busiest.start, fold.test.start + busiest.stop)
            strips[variant] = strip_of(*session.native_mouths(actor, frames, variant, speeches[variant][0]))
    return strips


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
        face_distance: FaceDistance | None,
        perceptual: Callable[[], PerceptualDistance] | None,
        progress: Progress | None,
    ) -> None:
        self._session = session
        self._retrack = retrack
        self._settings = settings
        self._sync_distance = sync_distance
        self._face_distance = face_distance
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
        speeches: Mapping[Variant, Sequence[EvaluatedSpeech | None]],
        keeper: SampleCollector | None,
    ) -> dict[Variant, list[RunMeasures]]:
        """Return all runs of one fold: a list per variant, with one run per speech."""
        if "full" in speeches:
            # Before other variants, which use the same motion.
            with self.cost.predicting(self._session.num_frames):
                self._session.predict(actor)
            self.silences.append(_silence_opening(self._session.framed_motion(actor, fold.test)))
        pieces: dict[Variant, list[list[RunMeasures]]] = {name: [[] for _ in of] for name, of in speeches.items()}
        person, mouth = self._own(fold.enrol)
        for frames in pieces_of(fold.test, self._settings.piece_frames):
            shown = self._session.truth(frames)
            landmarks = self._retrack(shown.crops)
            truth = truth_piece(shown, landmarks, person, mouth)
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

    def _joined(self, pieces: list[RunMeasures], variant: Variant, lag_frames: float, test: FrameRange) -> RunMeasures:
        seconds = self._session.frame_seconds[test.start : test.stop]
        if variant == "full_aligned":
            # The mouth at time t belongs to the sound at time t + lag.
            seconds = seconds + lag_frames * MOTION_FRAME_S
        run = join_pieces(pieces, float(1 / self._session.frame_rate), seconds, self._closures(pieces, seconds))
        return run if variant in WRONG_AUDIO else with_phones(run, seconds, self._phones)

    def _own(self, enrol: FrameRange) -> tuple[PersonFace | None, OwnMouth]:
        """Return the face and the mouth of the clip's person, from the first piece of an enrolment part."""
        shown = self._session.truth(next(pieces_of(enrol, self._settings.piece_frames)))
        landmarks = self._retrack(shown.crops).copy()
        landmarks[[reason != "" for reason in shown.reasons]] = np.nan
        return PersonFace.measured(landmarks), own_mouth(shown.crops, landmarks)

    def _measure(
        self,
        variant: Variant,
        frames: FrameRange,
        truth: TruthPiece,
        rendered: Rendered,
        speech: EvaluatedSpeech | None,
        *,
        keeper: SampleCollector | None,
    ) -> RunMeasures:
        landmarks = self._retrack(rendered.crops)
        measures = measure_piece(truth, rendered, landmarks)
        if self._sync_distance is not None:
            distance = self._sync_distance(landmarks, frames, speech)
            measures = dataclasses.replace(measures, extras=dict(measures.extras) | {"sync_distance": distance})
        if self._face_distance is not None and measures.measured.any():
            rows = np.flatnonzero(measures.measured)
            compared = rows[list(sample_frames(FrameRange(0, len(rows)), FACE_FRAMES))]
            distance = self._face_distance(truth.crops[compared], rendered.crops[compared])
            measures = dataclasses.replace(measures, extras=dict(measures.extras) | {"face_distance": distance})
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
