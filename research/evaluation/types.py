"""Interface between an evaluation and the method under test, and the results of an evaluation.

All measures are taken in the 256 x 256 face crop of the **footage's own** head pose (docs/coordinates.md), so that the truth and
every variant have the same pixel grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, Protocol, TypeVar, get_args

import numpy as np

from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.wire.mouth_curves import Trigger

Variant = Literal[
    "mean_mouth",
    "wrong_audio",
    "retrieval",
    "tps",
    "tps_refined",
    "warp_network",
    "full",
    "full_aligned",
    "full_kept",
    "wrong_audio_kept",
    "single_frame",
    "no_detail",
    "as_drawn",
    "oracle_full",
]
"""Variants that can be rendered. The speech of the clip is used at its own time, as in a dub of the clip with the clip's own sound,
but for `full_aligned`.

    mean_mouth    the medoid enrolment frame with the alignment, mask, colour match and blending of `full`
    wrong_audio   `full`, driven by foreign speech; mean over all foreign speeches
    retrieval     predicted motion, retrieved textures pasted without warp
    tps           + thin-plate spline frame by frame
    tps_refined   + the renderer, without the temporal warp network
    warp_network  + the temporal warp network
    full          + the renderer: the method without the slow expression of the footage (`--expression neutral`)
    full_aligned  `full`, driven by the speech moved by the lag that was measured on the enrolment part: without the error in time
    full_kept     `full` with the slow expression of the real video, as `--expression keep` carries it. It uses the video's mouths
    wrong_audio_kept
                  `full_kept`, driven by foreign speech: how much of the real mouth the expression alone tells
    single_frame  `full` with the style of a single frame's landmarks in place of the actor's motion
    no_detail     `full` without the fine detail of the person's own frames (services/common/face/mouth_detail.py)
    as_drawn      `full` with colours and insides of mouths as the renderer draws them (gateway/compositing/own_colours.py)
                  With the finish `renderer`, no_detail and as_drawn are `full`
    oracle_full   `full` with the landmarks of the truth in place of predicted landmarks
"""

VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)

WRONG_AUDIO: Final[tuple[Variant, ...]] = ("wrong_audio", "wrong_audio_kept")
"""Variants that are rendered once for each foreign speech."""

DEFAULT_VARIANTS: Final[tuple[Variant, ...]] = tuple(variant for variant in VARIANTS if variant != "wrong_audio_kept")
"""Variants of an evaluation unless others are asked for. Ten more speeches would take as long as all other variants together."""

TABLE_VARIANTS: Final[tuple[Variant, ...]] = ("mean_mouth", "wrong_audio", "full", "full_aligned", "oracle_full")
"""Variants of a table unless others are asked for: the method, and the controls that it is compared with."""

METRICS: Final[tuple[str, ...]] = (
    "face_psnr_db",
    "face_ssim",
    "face_ms_ssim",
    "mouth_psnr_db",
    "mouth_ssim",
    "mouth_lmd_px",
    "mouth_opening_correlation",
    "lip_width_correlation",
    "opening_spread_ratio",
    "lip_width_spread_ratio",
    "fastest_step_ratio",
    "delay_ms",
    "vowel_shift_ms",
    "closure_shift_ms",
    "silence_opening",
    "sharpness_ratio",
    "native_sharpness_ratio",
    "frame_difference_ratio",
    "skin_flicker_ratio",
    "closure",
    "tint_alarms",
    "nostril_alarms",
    "low_contrast_excess",
    "popping_ratio",
    "seam_sharpness_ratio",
    "lip_jump_ratio",
    "clothing_moved",
)
"""The metrics of every variant, in the order of tables and JSON."""

MEDIANS: Final = frozenset({"delay_ms"})
"""Metrics whose median over clips is shown, because one clip with words that fit badly may be far off. Of others, the mean is."""
Retrack = Callable[[UInt8], Float32]
"""Face tracker for crops: uint8 [T, 256, 256, 3], consecutive frames, to landmarks float32 [T, 478, 3] in crop pixels, NaN where no
face is found. Truth and result are both tracked, so that both have the same noise."""
FaceDistance = Callable[[UInt8, UInt8], float]
"""Distance of the mean face embeddings of truth and result: crops uint8 [T, 256, 256, 3] each; NaN: no face is found."""
COSTS: Final = ("personalize_s", "personalize_cpu_s", "ms_per_frame", "cpu_ms_per_frame", "peak_memory_mib", "actor_mib")
"""Cost of a method on one clip."""


@dataclass(frozen=True, slots=True, order=True)
class FrameRange:
    """Frames start, ..., stop - 1 of a clip."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of a clip: enrol on `enrol`, measure on `test`. The two parts share no frame."""

    enrol: FrameRange
    test: FrameRange


@dataclass(frozen=True, slots=True)
class EvaluatedSpeech:
    """Speech that replaces the speech of a clip.

    Attributes:
        samples: float32 [N], 16 kHz mono, sample 0 at the clip's first frame, as long as the clip.
    """

    name: str
    samples: Float32 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Frames of one variant.

    Attributes:
        crops: uint8 [T, 256, 256, 3], RGB: the face crop of the **composited** frame, after mask, colour match and blending.
        reasons: T texts: "" for a dubbed frame, otherwise a reason code (NO_FACE, ...). Frames with a reason are not measured.
        commanded: float32 [T], mouth opening that the renderer was asked for, crop pixels; None: the variant has none.
        native_energy: float64 [T], energy of the finest band of the mouth at the footage's own resolution (clip.py); None: not
            measured.
        diagnostics: metrics of the method, averaged over the ranges and weighted by frames, such as `fitting_error` of the warp.
    """

    crops: UInt8 = field(repr=False)
    reasons: tuple[str, ...]
    commanded: Float32 | None = None
    native_energy: Float64 | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FramedMotion:
    """Predicted mouths for the sound of a test part with silence before and after, at 25 frames per second (framed_speech).

    Attributes:
        opening: float32 [T], predicted opening of the mouth, crop pixels.
        spoken: bool [T], frames in which somebody speaks.
        own_opening: float32 [E], opening of the person's mouth in the usable frames of the enrolment part, crop pixels.
    """

    opening: Float32 = field(repr=False)
    spoken: Bool = field(repr=False)
    own_opening: Float32 = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """Head motion on the frames of one test part, by a method that moves the head: head-pose vectors (docs/coordinates.md).

    Attributes:
        real: float64 [T, 6], head poses of the footage; NaN rows where the footage shows no face.
        predicted: float64 [T, 6], head poses that the motion stage predicts.
        output: float64 [T, 6], head poses that the video would show: those of the chosen backgrounds.
        enrolled: float64 [K, 6], head poses of the usable frames of the enrolment part.
        backgrounds: int64 [T], chosen footage frames of the enrolment part.
    """

    real: Float64 = field(repr=False)
    predicted: Float64 = field(repr=False)
    output: Float64 = field(repr=False)
    enrolled: Float64 = field(repr=False)
    backgrounds: Int64 = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeadMotionResult:
    """Head motion of one clip.

    Attributes:
        scores: HEAD_FIGURES by HEAD_ROWS (head_motion.py).
        motion: head motion of the first fold, for the report.
        first_frame: first frame of that fold's test part.
    """

    scores: Mapping[str, Mapping[str, float]]
    motion: HeadMotion = field(repr=False)
    first_frame: int


class EvaluatedActor(Protocol):
    """An actor that was enrolled on one part of a clip. The evaluation reads lag, doubt of the lag, and size only."""

    @property
    def lag_frames(self) -> float:
        """Measured lag of the sound on the enrolment part, frames of 40 ms; positive: the sound comes after the picture."""
        ...

    @property
    def lag_doubt(self) -> str:
        """Why the lag is not applied; empty: the lag is applied, or nothing was measured."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of all that was learned of the person."""
        ...


Handle = TypeVar("Handle", bound=EvaluatedActor)


class SelfReenactment(Protocol[Handle]):
    """One clip with the method under test. The gateway's pipeline implements this interface."""

    @property
    def clip(self) -> str:
        """Name of the clip in the result."""
        ...

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip."""
        ...

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, the average for variable rates."""
        ...

    @property
    def frame_seconds(self) -> Float64:
        """Presentation time of every frame from the first frame, seconds, float64 [T]."""
        ...

    @property
    def speech(self) -> Float32:
        """Sound of the clip: float32 [N], 16 kHz mono, sample 0 at the first frame."""
        ...

    def truth(self, frames: FrameRange) -> Rendered:
        """Return the real video. The reasons say why a frame has no face crop; "" for a frame with a face crop."""
        ...

    def enrol(self, frames: FrameRange) -> Handle:
        """Return an actor that is learned from these frames only, with their lag.

        Raises:
            NoUsableFootageError: no frame of the range has a usable face.
        """
        ...

    def predict(self, actor: Handle) -> None:
        """Predict the motion of every frame of `full`, which renders use from then on."""
        ...

    def render(self, actor: Handle, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None) -> Rendered:
        """Return the dubbed frames of a range.

        Long ranges are rendered piece by piece, so the result must not depend on the cuts.

        Args:
            speech: foreign speech (WRONG_AUDIO); None: the sound of the clip.
        """
        ...

    def native_mouths(
        self, actor: Handle, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None
    ) -> tuple[UInt8, UInt8]:
        """Return the mouths of a range at the size of the video, before and after the dub, uint8 [T, H, W, 3] each, RGB."""
        ...

    def phone_times(self) -> Mapping[Trigger, Float64]:
        """Return the centres of the open vowels and of the p, b, m in the sound of the clip, float64 [E] each, seconds."""
        ...

    def framed_motion(self, actor: Handle, frames: FrameRange) -> FramedMotion:
        """Return the predicted mouths for the sound of a range with silence before and after."""
        ...

    def head_motion(self, actor: Handle, frames: FrameRange) -> HeadMotion | None:
        """Return the head motion of a video with its own timeline and the speech of the range; None: the method moves no head."""
        ...


SyncDistance = Callable[[Float32, FrameRange, EvaluatedSpeech | None], float]
"""Distance of mouth and sound by a sync network. Arguments: tracked landmarks float32 [T, 478, 3] (crop pixels, NaN rows where not
tracked), the frames of the landmarks, and the foreign speech or None."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % bootstrap interval over blocks of frames."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantScores:
    """Means of one variant over the folds (and speeches) of one clip.

    Attributes:
        metrics: value of each name of METRICS; NaN if it cannot be measured (closure without a transcript, silence_opening of all
            variants but `full`).
        intervals: bootstrap intervals of the metrics that are not NaN.
        paper: further metrics: photometric_error, ssiou, expression_error, landmark_error_px, nme, commanded_opening_correlation,
            sync_distance, mouth_distance, face_distance, lpips, fid, and the diagnostics of the method. `full` also has
            HEAD_FIGURES (head_motion.py) if the method moves the head.
        frames: measured frames over all folds. With several foreign speeches, a frame counts once.
        passed_through: frames of the test parts that were not dubbed, or whose truth has no tracked mouth.
        lost_faces: dubbed frames on which the tracker finds no face. With several foreign speeches: their mean, rounded up.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    paper: Mapping[str, float]
    frames: int
    passed_through: int
    lost_faces: int


@dataclass(frozen=True, slots=True)
class VariantSample:
    """Parts of a variant that a report shows: a few evenly spread crops, and the opening curves of the first fold.

    Attributes:
        crops: uint8 [S, 256, 256, 3], crops of the frames in `ClipResult.sample_frames`.
        opening: float32 [T], tracked opening on the test frames of the first fold, crop pixels, NaN where not tracked.
        commanded: float32 [T], opening that the renderer was asked for; None: the variant has none.
    """

    crops: UInt8 = field(repr=False)
    opening: Float32 = field(repr=False)
    commanded: Float32 | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A fold with the lag of its enrolment part.

    Attributes:
        lag_frames: lag of the sound, frames of 40 ms; 0 if unknown.
        lag_doubt: why the lag is not applied; empty: the lag is applied, or nothing was measured.
    """

    fold: Fold
    lag_frames: float
    lag_doubt: str = ""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """Result of the evaluation of one clip.

    Attributes:
        clip: name of the clip.
        frame_rate: frames per second.
        lag_frames: lag of the fold with the longest enrolment part, frames of 40 ms.
        folds: folds with their lags.
        variants: scores of each variant.
        sample_frames: frames that the samples show.
        truth: sample of the real video, for the report.
        samples: sample of each variant, for the report.
        head_motion: scores of the head motion; None: the method moves no head.
        cost: COSTS by name; NaN where not measured.
        strips: strip of each variant, uint8 [H, W, 3] RGB (strips.py); empty if not asked for.
        video: uint8 [V, 256, 512, 3], truth beside `full` in the first seconds of the first fold; V is 0 if not kept.
    """

    clip: str
    frame_rate: Fraction
    lag_frames: float
    folds: tuple[FoldResult, ...]
    variants: Mapping[Variant, VariantScores]
    sample_frames: tuple[int, ...] = ()
    truth: VariantSample | None = None
    samples: Mapping[Variant, VariantSample] = field(default_factory=dict)
    head_motion: HeadMotionResult | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    strips: Mapping[Variant, UInt8] = field(repr=False, default_factory=dict)
    video: UInt8 = field(repr=False, default_factory=lambda: np.zeros((0, 256, 512, 3), np.uint8))
