"""Contents of reports: plain values and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from gateway.reports.appearance import AppearanceMetrics
from gateway.stages.timing import StageTimes
from services.common.array_types import Float32, Float64, UInt8
from services.common.wire.mouth_curves import MotionMetrics


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a table of facts, such as ("codec", "h264")."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """One frame before and after.

    Attributes:
        label: text under the pair, such as "frame 120, 4.80 s".
        before, after: uint8 [H, W, 3] RGB, one shape.
    """

    label: str
    before: UInt8 = field(repr=False)
    after: UInt8 = field(repr=False)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A video of two videos side by side.

    Attributes:
        pictures: uint8 [H, W, 3] RGB each, all of one shape with even sides. They are read once, in order.
        frame_rate: frames per second.
        speech: float32 [N] mono at `sample_rate_hz`; None: the video is silent.
        sample_rate_hz: sample rate of the speech.
    """

    pictures: Iterable[UInt8] = field(repr=False)
    frame_rate: Fraction
    speech: Float32 | None = field(repr=False, default=None)
    sample_rate_hz: int = 16_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LineReport:
    """One line in the report of a scene.

    Attributes:
        name: name of the line.
        facts: who speaks, the speech, and the frames.
        reasons: one reason code per frame of the line.
        start: first frame of the line.
        pairs, commanded_opening, tracked_opening, motion, appearance: as in DubReport, only of the line's face and frames.
    """

    name: str
    facts: Sequence[Fact]
    reasons: Sequence[str]
    start: int
    pairs: Sequence[BeforeAfter] = ()
    commanded_opening: Float32 | None = field(repr=False, default=None)
    tracked_opening: Float32 | None = field(repr=False, default=None)
    motion: MotionMetrics | None = None
    appearance: AppearanceMetrics | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DubReport:
    """Everything that the report of one dub shows.

    Attributes:
        title: title of the page.
        input, output: facts of both files.
        consent: "no consent on record", or the consent record in one line.
        has_consent: whether there is a consent record.
        method: name of the method.
        synthetic: sentence that says which parts of the video are synthetic, without its full stop.
        reasons: one reason code per frame of the video; "DUBBED" or "SILENT": the mouth was rendered.
        frame_rate: frames per second; the average of variable rates.
        mask_area_share: float32 [T], area of the mask over the area of the frame; 0: nothing was changed.
        lag_frames: lag of the footage's sound, frames of 40 ms; None: not measured.
        times: time that each stage took.
        pairs: mouths before and after.
        frames: whole frames of the result, evenly spread: label and uint8 [H, W, 3], one shape.
        fitting: rows of the person's face model on frames of the result (dub_report.py); None: the actor has no identity.
        head_motion: head-pose vectors float64 [T, 6] by the name of their curve; None: the head moves as in the footage.
        commanded_opening, tracked_opening: float32 [T], crop pixels, NaN where unknown; None: not measured.
        motion: the target motion compared with the person's own; None: not measured.
        appearance: what eyes see of the mouths, against the video that was dubbed; None: not measured.
        undubbed: why no frame of the video is dubbed, and what to do; empty: at least one frame is dubbed.
        lines: lines of a scene; empty: the dub is of one person.
    """

    title: str
    input: Sequence[Fact]
    output: Sequence[Fact]
    consent: str
    has_consent: bool
    method: str
    synthetic: str
    reasons: Sequence[str]
    frame_rate: Fraction
    mask_area_share: Float32 = field(repr=False)
    lag_frames: int | None
    times: StageTimes
    pairs: Sequence[BeforeAfter] = ()
    frames: Sequence[tuple[str, UInt8]] = field(repr=False, default=())
    fitting: UInt8 | None = field(repr=False, default=None)
    head_motion: Mapping[str, Float64] | None = field(repr=False, default=None)
    commanded_opening: Float32 | None = field(repr=False, default=None)
    tracked_opening: Float32 | None = field(repr=False, default=None)
    motion: MotionMetrics | None = None
    appearance: AppearanceMetrics | None = None
    undubbed: str = ""
    warnings: Sequence[str] = ()
    lines: Sequence[LineReport] = ()
