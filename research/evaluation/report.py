"""The report of an evaluation: FOLDER/index.html with tables, bars against the targets, pictures, curves and videos."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.reports.folder import PAGE, report_folder
from gateway.reports.pages import Curve, plot_curves, plot_head_motion, render_page
from gateway.reports.pictures import reduced, stack_rows, write_picture, write_side_by_side
from gateway.reports.types import Fact, SideBySide
from research.evaluation.head_motion import HEAD_FIGURES
from research.evaluation.measures import mouth_box
from research.evaluation.targets import TargetCheck, check_targets, head_means, variant_means
from research.evaluation.types import METRICS, VARIANTS, ClipResult, Variant

HEADINGS: Final[Mapping[str, str]] = {
    "face_psnr_db": "face PSNR, dB",
    "face_ssim": "face SSIM",
    "face_ms_ssim": "face MS-SSIM",
    "mouth_psnr_db": "mouth PSNR, dB",
    "mouth_ssim": "mouth SSIM",
    "mouth_lmd_px": "mouth LMD, px",
    "mouth_opening_correlation": "opening r",
    "lip_width_correlation": "width r",
    "opening_spread_ratio": "opening spread",
    "lip_width_spread_ratio": "width spread",
    "fastest_step_ratio": "fastest step",
    "delay_ms": "delay, ms",
    "vowel_shift_ms": "vowel shift, ms",
    "closure_shift_ms": "closure shift, ms",
    "silence_opening": "opening in silence",
    "sharpness_ratio": "sharpness",
    "native_sharpness_ratio": "sharpness, native",
    "frame_difference_ratio": "frame difference",
    "skin_flicker_ratio": "skin flicker",
    "closure": "closure",
    "tint_alarms": "tint alarms",
    "nostril_alarms": "nostril alarms",
    "low_contrast_excess": "low contrast, excess",
    "popping_ratio": "popping",
    "seam_sharpness_ratio": "seam sharpness",
    "lip_jump_ratio": "lip jump",
    "clothing_moved": "clothing moved",
}
DIGITS: Final[Mapping[str, int]] = {
    "face_psnr_db": 1,
    "mouth_psnr_db": 1,
    "face_ssim": 3,
    "face_ms_ssim": 3,
    "mouth_ssim": 3,
} | dict.fromkeys(("delay_ms", "vowel_shift_ms", "closure_shift_ms"), 0)
HEAD_HEADINGS: Final[Mapping[str, str]] = {
    "hs": "HS",
    "hs_own_range": "HS, own range",
    "hs_velocity": "velocity HS",
    "hs_velocity_own_range": "velocity HS, own range",
}
HEAD_NAMES: Final[Mapping[str, str]] = {
    "output": "video",
    "predicted": "predicted",
    "still": "control: still head",
    "shuffled": "control: own poses shuffled",
}
FACE_HEIGHT: Final = 192
_CURVES: Final[tuple[tuple[Variant, int], ...]] = (("full", 1), ("oracle_full", 3))


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """Everything that the report of an evaluation shows.

    Attributes:
        title: title of the page.
        method: name of the method.
        facts: facts of the run: seconds, versions, weights.
    """

    title: str
    method: str
    clips: Sequence[ClipResult]
    facts: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A target as a bar, on a scale of its own that holds the value and the bounds.

    Attributes:
        value_percent: where the value lies on the scale.
        low_percent, high_percent: the part of the scale that meets the target.
    """

    check: TargetCheck
    value_percent: float
    low_percent: float
    high_percent: float


@dataclass(frozen=True, slots=True)
class ClipPage:
    """Files and names of one clip's section. A file name is empty if there is nothing to show."""

    result: ClipResult
    paper: tuple[str, ...]
    sheet: str
    sheet_rows: tuple[str, ...]
    faces: str
    curves: str
    video: str
    head: str


def bar_of(check: TargetCheck) -> Bar:
    """Return a value and its bounds on a scale from 0 % to 100 %, with a margin on either side."""
    low, high = check.target.low, check.target.high
    marks = [mark for mark in (low, high, check.value) if mark is not None and np.isfinite(mark)]
    span = max(marks) - min(marks)
    margin = 0.25 * span if span > 0.0 else 0.25 * max(abs(marks[0]), 1.0)
    begin, end = min(marks) - margin, max(marks) + margin

    def percent(mark: float) -> float:
        return round(100.0 * (mark - begin) / (end - begin), 2)

    value = percent(check.value) if np.isfinite(check.value) else 0.0
    return Bar(check, value, 0.0 if low is None else percent(low), 100.0 if high is None else percent(high))


def write_evaluation_report(report: EvaluationReport, folder: Path) -> Path:
    """Write the page with its pictures, plots and videos, all of them or none, and return the page's path.

    Raises:
        InvalidRequestError, StorageFullError: the folder cannot be written.
    """
    with report_folder(folder) as partial:
        _write(report, partial)
    return folder / PAGE


def _write(report: EvaluationReport, folder: Path) -> None:
    shown = tuple(name for name in VARIANTS if any(name in clip.variants for clip in report.clips))
    checks = check_targets(report.clips)
    values = {
        "report": report,
        "metrics": METRICS,
        "headings": HEADINGS,
        "digits": DIGITS,
        "variants": shown,
        "means": {name: variant_means(report.clips, name) for name in shown},
        "bars": [bar_of(check) for check in checks],
        "reached": sum(check.reached is True for check in checks),
        "measured": sum(check.reached is not None for check in checks),
        "head": head_means(report.clips),
        "head_figures": HEAD_FIGURES,
        "head_headings": HEAD_HEADINGS,
        "head_names": HEAD_NAMES,
        "pages": [_clip_page(clip, index, folder) for index, clip in enumerate(report.clips)],
    }
    render_page("evaluation.html.j2", values, folder, templates=Path(__file__).parent)


def _clip_page(result: ClipResult, index: int, folder: Path) -> ClipPage:
    stem = f"{index:02d}_" + re.sub(r"[^A-Za-z0-9]+", "_", result.clip).strip("_")
    sheet = faces = curves = video = head = ""
    rows: tuple[str, ...] = ()
    if result.truth is not None and len(result.truth.crops):
        named = {"truth": result.truth} | {name: result.samples[name] for name in VARIANTS if name in result.samples}
        rows, sheet = tuple(named), f"{stem}_mouths.jpg"
        write_picture(folder / sheet, stack_rows([mouth_box(sample.crops) for sample in named.values()]))
        if "full" in named:
            faces = f"{stem}_faces.jpg"
            rows_of_faces = [named[name].crops for name in ("truth", "full")]
            write_picture(
                folder / faces, stack_rows([np.stack([reduced(crop, FACE_HEIGHT) for crop in crops]) for crops in rows_of_faces])
            )
        curves = f"{stem}_opening.svg"
        lines = [Curve("truth", result.truth.opening, 0)]
        lines += [Curve(name, result.samples[name].opening, colour) for name, colour in _CURVES if name in result.samples]
        start = result.folds[0].fold.test.start
        plot_curves(folder / curves, lines, float(result.frame_rate), "mouth opening, crop px", start)
    if len(result.video):
        video = f"{stem}_truth_and_full.mp4"
        write_side_by_side(folder / video, SideBySide(iter(result.video), result.frame_rate))
    if result.head_motion is not None:
        head = f"{stem}_head.svg"
        motion = result.head_motion.motion
        motions = {"footage": motion.real, "video": motion.output, "predicted": motion.predicted}
        plot_head_motion(folder / head, motions, float(result.frame_rate), result.head_motion.first_frame)
    paper = tuple(sorted({name for scores in result.variants.values() for name in scores.paper}))
    return ClipPage(result, paper, sheet, rows, faces, curves, video, head)
