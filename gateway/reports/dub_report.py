"""The report of one dub: FOLDER/index.html, its pictures, and FOLDER/report.json with the same figures for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.evaluation.mouth_metrics import correlation
from gateway.reports.figures import Curve, plot_curves, plot_head_motion
from gateway.reports.fitting_sheet import COLUMNS
from gateway.reports.folder import PAGE, report_folder
from gateway.reports.pages import render_page
from gateway.reports.pictures import before_after_sheet, contact_sheet, write_picture
from gateway.reports.side_by_side import write_side_by_side
from gateway.reports.strip import RENDERED, counts_of, spans_of
from gateway.reports.types import DubReport

FRAME_COLUMNS: Final = 4
MOTION_NAMES: Final = {
    "silence_opening": "largest opening in silence, share of the person's range (0 is at rest)",
    "opening_spread": "spread of the opening over the person's own (1 is the person's own)",
    "width_spread": "spread of the lip width over the person's own (1 is the person's own)",
    "fastest_step": "fastest change of the opening over the person's own (at most 1)",
    "vowel_shift_ms": "ms by which open vowels are later than the person's own (0 is on time)",
    "closure_shift_ms": "ms by which p, b, m are later than the person's own (0 is on time)",
}
"""Names of MotionMetrics on the page."""


def mean_mask_share(report: DubReport) -> float:
    """Mean share of the picture that the mask covers, over rendered frames; 0 if no frame was rendered."""
    rendered = np.array([reason in RENDERED for reason in report.reasons], np.bool_)
    shares = report.mask_area_share[rendered[: len(report.mask_area_share)]]
    return float(shares.mean()) if len(shares) else 0.0


def report_json(report: DubReport) -> dict[str, Any]:
    """Return the figures of a dub as plain values. The benchmark reads `times`."""
    times = report.times
    return {
        "title": report.title,
        "method": report.method,
        "input": {fact.name: fact.value for fact in report.input},
        "output": {fact.name: fact.value for fact in report.output},
        "consent": report.consent,
        "frames": len(report.reasons),
        "reasons": {count.reason: count.frames for count in counts_of(report.reasons)},
        "mask_area_share": round(mean_mask_share(report), 6),
        "lag_frames": report.lag_frames,
        "motion": {name: round(value, 4) if math.isfinite(value) else None for name, value in _motion(report).items()},
        "undubbed": report.undubbed,
        "warnings": list(report.warnings),
        "times": {
            "end_to_end_s": times.end_to_end_s,
            "total_s": times.total_s,
            "frames_per_second": times.frames_per_second,
            "personalize_s": times.personalize_s,
            "cpu_s": times.cpu_s,
            "stages": [
                {"name": stage.name, "wall_s": stage.wall_s, "cpu_s": stage.cpu_s, "frames": stage.frames} for stage in times.stages
            ],
        },
    }


def _motion(report: DubReport) -> dict[str, float]:
    return {} if report.motion is None else asdict(report.motion)


def write_dub_report(report: DubReport, folder: Path) -> Path:
    """Write the page, its pictures, the side-by-side video and report.json, all of them or none, and return the page's path.

    Raises:
        InvalidRequest, StorageFull: the folder cannot be written.
    """
    with report_folder(folder) as partial:
        _write(report, partial)
    return folder / PAGE


def _write(report: DubReport, folder: Path) -> None:
    files: dict[str, str] = {}
    if report.pairs:
        write_picture(folder / "mouths.jpg", before_after_sheet(report.pairs))
        files["mouths"] = "mouths.jpg"
    if report.frames:
        write_picture(folder / "frames.jpg", contact_sheet([picture for _, picture in report.frames], FRAME_COLUMNS))
        files["frames"] = "frames.jpg"
    if report.fitting is not None:
        write_picture(folder / "fitting.jpg", report.fitting)
        files["fitting"] = "fitting.jpg"
    if report.head_motion is not None:
        plot_head_motion(folder / "head_motion.svg", report.head_motion, float(report.frame_rate))
        files["head_motion"] = "head_motion.svg"
    if report.video is not None and write_side_by_side(folder / "side_by_side.mp4", report.video):
        files["video"] = "side_by_side.mp4"
    curves = [
        Curve(label, values, colour)
        for label, values, colour in (
            ("commanded", report.commanded_opening, 1),
            ("tracked on the result", report.tracked_opening, 2),
        )
        if values is not None
    ]
    if curves:
        plot_curves(folder / "opening.svg", curves, float(report.frame_rate), "mouth opening, crop px")
        files["opening"] = "opening.svg"
    obeyed = None
    if report.commanded_opening is not None and report.tracked_opening is not None:
        obeyed = correlation(report.commanded_opening, report.tracked_opening)
    values = {
        "report": report,
        "files": files,
        "fitting_columns": COLUMNS,
        "spans": spans_of(report.reasons, report.frame_rate),
        "counts": counts_of(report.reasons),
        "dubbed": sum(reason in RENDERED for reason in report.reasons),
        "mask_share": mean_mask_share(report),
        "slowest_ms": max((stage.ms_per_frame for stage in report.times.stages), default=0.0),
        "obeyed": obeyed,
        "motion": _motion(report),
        "motion_names": MOTION_NAMES,
        "seconds": float(len(report.reasons) / report.frame_rate),
    }
    text = json.dumps(report_json(report), indent=2, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    render_page("dub.html.j2", values, folder)
