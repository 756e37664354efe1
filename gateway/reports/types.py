"""What a report is made of: plain values and arrays, filled by the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from gateway.evaluation.types import ClipResult
from gateway.reports.stage_times import StageTimes

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a table of facts: such as ("codec", "h264")."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """One frame before and after.

    Attributes:
        label: shown under the pair, such as "frame 120, 4.80 s".
        before, after: uint8 [H, W, 3] RGB, one shape.
    """

    label: str
    before: Uint8 = field(repr=False)
    after: Uint8 = field(repr=False)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A video to be written beside the page.

    Attributes:
        pictures: uint8 [H, W, 3] RGB each, one even-sized shape; taken once, one after the other.
        frame_rate: frames a second.
        speech: float32 [N] mono at `sample_rate_hz`, or None for a silent video.
    """

    pictures: Iterable[Uint8] = field(repr=False)
    frame_rate: Fraction
    speech: Float32 | None = field(repr=False, default=None)
    sample_rate_hz: int = 16_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DubReport:
    """Everything that the report of one dub shows.

    Attributes:
        title: of the page.
        input, output: facts of both files.
        consent: "no consent on record", or the record in one line.
        has_consent: whether there is a record.
        method: name of the method.
        reasons: a reason code a frame of the film, "DUBBED" or "SILENT" where its mouth was rendered.
        frame_rate: frames a second (the average for variable rates).
        mask_area_share: float32 [T], area of the mask over the area of the frame, 0 where nothing was changed.
        lag_frames: lag found in the footage, frames of 40 ms; None where it was not looked for.
        times: of the stages.
        pairs: mouths before and after.
        frames: whole frames of the result, evenly spread: label and uint8 [H, W, 3], one shape.
        fitting: rows of the person's face model on frames of the result (fitting_sheet.py); None where the actor has no identity.
        head_motion: head-pose vectors float64 [T, 6] by the name of their curve; None where the head moves as in the footage.
        commanded_opening, tracked_opening: float32 [T], crop pixels, NaN where unknown; None where not measured.
        video: side by side.
        warnings: what the user was told.
    """

    title: str
    input: Sequence[Fact]
    output: Sequence[Fact]
    consent: str
    has_consent: bool
    method: str
    reasons: Sequence[str]
    frame_rate: Fraction
    mask_area_share: Float32 = field(repr=False)
    lag_frames: int | None
    times: StageTimes
    pairs: Sequence[BeforeAfter] = ()
    frames: Sequence[tuple[str, Uint8]] = field(repr=False, default=())
    fitting: Uint8 | None = field(repr=False, default=None)
    head_motion: Mapping[str, npt.NDArray[np.float64]] | None = field(repr=False, default=None)
    commanded_opening: Float32 | None = field(repr=False, default=None)
    tracked_opening: Float32 | None = field(repr=False, default=None)
    video: SideBySide | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """Everything that the report of an evaluation shows.

    Attributes:
        title: of the page.
        method: name of the method.
        clips: results of all clips.
        facts: how it was run: seconds, versions, weights.
    """

    title: str
    method: str
    clips: Sequence[ClipResult]
    facts: Sequence[Fact] = ()
