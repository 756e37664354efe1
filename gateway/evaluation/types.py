"""What an evaluation asks of the method under test, and what it gives back.

Everything is measured in the 256 x 256 face crop of the **footage's own** head pose (docs/coordinates.md), so that
the truth and every variant lie on the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

Variant = Literal[
    "mean_mouth",
    "wrong_audio",
    "retrieval",
    "tps",
    "warp_network",
    "full",
    "no_style",
    "single_frame",
    "oracle_full",
]
"""What may be rendered.

    mean_mouth    the medoid enrolment frame with the alignment, mask, colour match and blending of `full`
    wrong_audio   `full`, driven by speech that is not the clip's (the speech is given); mean over all given
    retrieval     predicted motion, retrieved textures pasted without warp
    tps           + thin-plate spline frame by frame
    warp_network  + the temporal warp network
    full          + the refine network: the method as users get it
    no_style      `full` with the mean style of the training speakers in place of the actor's
    single_frame  `full` with the style of a single frame's landmarks in place of the actor's motion
    oracle_full   `full` with the truth's landmarks in place of predicted ones
"""

VARIANTS: Final[tuple[Variant, ...]] = (
    "mean_mouth",
    "wrong_audio",
    "retrieval",
    "tps",
    "warp_network",
    "full",
    "no_style",
    "single_frame",
    "oracle_full",
)

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
    "sharpness_ratio",
    "frame_difference_ratio",
    "closure",
)
"""The metrics of every variant, in the order of tables and JSON."""


@dataclass(frozen=True, slots=True, order=True)
class FrameRange:
    """Frames start, ..., stop - 1 of a clip."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of a clip: personalise on `enrol`, measure on `test`; the two share no frame."""

    enrol: FrameRange
    test: FrameRange


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech in place of the clip's own.

    Attributes:
        name: for the report.
        samples: float32 [N], 16 kHz mono, sample 0 at the clip's first frame, as long as the clip.
    """

    name: str
    samples: Float32 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Frames of one variant.

    Attributes:
        crops: uint8 [T, 256, 256, 3] RGB: the face crop of the **composited** frame (mask, colour match and blending
            done).
        reasons: T texts: "" where the frame was dubbed, else its reason code (NO_FACE, ...). Such frames are not
            measured.
        commanded: float32 [T] mouth opening that the renderer was told, crop pixels; None where a variant has none.
        diagnostics: figures of the method's own, averaged over the ranges weighted by frames, such as the spline's
            `fitting_error` (Ef) and `temporal_roughness` (Et).
    """

    crops: Uint8 = field(repr=False)
    reasons: tuple[str, ...]
    commanded: Float32 | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """Head motion over the frames of one test part, by a method that moves the head: head-pose vectors (docs/coordinates.md).

    Attributes:
        real: float64 [T, 6], of the footage; NaN rows where it shows no face.
        predicted: float64 [T, 6], what the motion stage wants.
        output: float64 [T, 6], what the film would show: poses of the chosen backgrounds.
        known: float64 [K, 6], usable frames of the enrolment part: what the method knew of how the person moves.
        backgrounds: int64 [T], the footage frames that were chosen, of the enrolment part.
    """

    real: Float64 = field(repr=False)
    predicted: Float64 = field(repr=False)
    output: Float64 = field(repr=False)
    known: Float64 = field(repr=False)
    backgrounds: npt.NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeadMotionResult:
    """Head motion of one clip.

    Attributes:
        scores: HEAD_FIGURES by HEAD_ROWS (head_scores.py).
        motion: of the first fold, for the report.
        first_frame: of that fold's test part.
    """

    scores: Mapping[str, Mapping[str, float]]
    motion: HeadMotion = field(repr=False)
    first_frame: int


class EnrolledActor(Protocol):
    """An actor that was made from one part of a clip; opaque to the evaluation but for the lag."""

    @property
    def lag_frames(self) -> int:
        """Audio/video lag found on the enrolment part, frames of 40 ms, positive when the sound comes late."""
        ...


Handle = TypeVar("Handle", bound=EnrolledActor)


class SelfReenactment(Protocol[Handle]):
    """One clip with the method under test. The gateway's pipeline implements it."""

    @property
    def clip(self) -> str:
        """Name of the clip, as it stands in the result."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        ...

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second (the average for variable rates)."""
        ...

    @property
    def speech(self) -> Float32:
        """The clip's own sound: float32 [N], 16 kHz mono, sample 0 at its first frame."""
        ...

    def truth(self, frames: FrameRange) -> Rendered:
        """The footage itself; reasons: why a frame has no face crop, "" where it has one."""
        ...

    def enrol(self, frames: FrameRange) -> Handle:
        """Make and personalise an actor from these frames alone; finds the lag on them.

        Raises:
            NoUsableFootage: no frame of the range has a usable face.
        """
        ...

    def render(self, actor: Handle, frames: FrameRange, variant: Variant, speech: Speech | None) -> Rendered:
        """Dub the range with the clip's own sound, or with `speech` where it is given (wrong_audio).

        The result must not depend on how a range is cut: long ranges are rendered piece by piece.
        """
        ...

    def head_motion(self, actor: Handle, frames: FrameRange) -> HeadMotion | None:
        """How the head would move in a film with a timeline of its own that speaks as the range does; None where heads stay."""
        ...


Retrack = Callable[[Uint8], Float32]
"""Face tracker on crops: uint8 [T, 256, 256, 3] consecutive frames -> float32 [T, 478, 3] landmarks in crop pixels,
NaN where no face is found. Used on truth and result alike, so that both carry the same noise."""

SyncDistance = Callable[[Float32, FrameRange, Speech | None], float]
"""Distance of mouth and sound by a sync network: re-tracked landmarks float32 [T, 478, 3] (crop pixels, NaN rows
where not tracked), the frames they belong to, and the speech if it is not the clip's own."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % bootstrap interval over blocks of frames."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantScores:
    """Means of one variant over the folds (and speeches) of one clip.

    Attributes:
        metrics: every name of METRICS; NaN where it can't be measured (closure without transcript).
        intervals: bootstrap intervals of the metrics that are not NaN.
        paper: further figures: photometric_error, ssiou, expression_error, landmark_error_px, commanded_opening_correlation,
            sync_distance, lpips, fid, the diagnostics that the method gave, and of `full`, where it moves the head, HEAD_FIGURES
            (head_scores.py).
        frames: frames measured, over all folds (for wrong_audio a speech counts once).
        passed_through: frames of the test parts that were not dubbed or whose truth has no tracked mouth.
        lost_faces: dubbed frames on which the tracker finds no face any more.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    paper: Mapping[str, float]
    frames: int
    passed_through: int
    lost_faces: int


@dataclass(frozen=True, slots=True)
class VariantSample:
    """What a report shows of a variant: a few evenly spread crops and all opening curves of the first fold.

    Attributes:
        crops: uint8 [S, 256, 256, 3], of the frames in `ClipResult.sample_frames`.
        opening: float32 [T] re-tracked opening on the first fold's test frames, crop pixels, NaN where not tracked.
        commanded: float32 [T] or None.
    """

    crops: Uint8 = field(repr=False)
    opening: Float32 = field(repr=False)
    commanded: Float32 | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A fold with the lag that was found on its enrolment part."""

    fold: Fold
    lag_frames: int


@dataclass(frozen=True, slots=True)
class ClipResult:
    """The evaluation of one clip.

    Attributes:
        lag_frames: lag of the fold with the longest enrolment part.
        truth: the footage itself, for the report.
        head_motion: of methods that move the head.
        video: uint8 [V, 256, 256 * 2, 3]: truth beside `full` over the first fold's first seconds; V = 0 where not
            kept.
    """

    clip: str
    frame_rate: Fraction
    lag_frames: int
    folds: tuple[FoldResult, ...]
    variants: Mapping[Variant, VariantScores]
    sample_frames: tuple[int, ...] = ()
    truth: VariantSample | None = None
    samples: Mapping[Variant, VariantSample] = field(default_factory=dict)
    head_motion: HeadMotionResult | None = None
    video: Uint8 = field(repr=False, default_factory=lambda: np.zeros((0, 256, 512, 3), np.uint8))
