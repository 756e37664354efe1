from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.reports.types import Fact
from research.evaluation.head_motion import HEAD_FIGURES, HEAD_ROWS
from research.evaluation.report import EvaluationReport, bar_of, write_evaluation_report
from research.evaluation.targets import TARGETS, MetricTarget, TargetCheck, check_targets, variant_means
from research.evaluation.types import (
    METRICS,
    ClipResult,
    Fold,
    FoldResult,
    FrameRange,
    HeadMotion,
    HeadMotionResult,
    Interval,
    VariantSample,
    VariantScores,
)


def scores(mouth_psnr_db: float, lmd: float) -> VariantScores:
    metrics = dict.fromkeys(METRICS, 0.9) | {"mouth_psnr_db": mouth_psnr_db, "mouth_lmd_px": lmd, "closure": float("nan")}
    metrics["silence_opening"] = 0.05
    return VariantScores(metrics, {"mouth_lmd_px": Interval(lmd - 0.125, lmd + 0.125)}, {"ssiou": 0.777}, 50, 2, 1)


def sample(seed: int) -> VariantSample:
    generator = np.random.default_rng(seed)
    crops = generator.integers(0, 255, (4, 256, 256, 3)).astype(np.uint8)
    return VariantSample(crops, generator.uniform(0, 12, 50).astype(np.float32))


def result(clip: str) -> ClipResult:
    return ClipResult(
        clip=clip,
        frame_rate=Fraction(25),
        lag_frames=1,
        folds=(
            FoldResult(Fold(FrameRange(0, 75), FrameRange(75, 125)), 1),
            FoldResult(Fold(FrameRange(50, 125), FrameRange(0, 50)), 0, "the confidence is 0.10"),
        ),
        variants={"mean_mouth": scores(22.5, 3.25), "full": scores(24.75, 2.5)},
        sample_frames=(80, 90, 100, 110),
        truth=sample(1),
        samples={"mean_mouth": sample(2), "full": sample(3)},
        video=np.zeros((5, 256, 512, 3), np.uint8),
    )


def result_without_pictures(clip: str) -> ClipResult:
    made = result(clip)
    return ClipResult(made.clip, made.frame_rate, made.lag_frames, made.folds, made.variants)


def test_the_page_holds_means_intervals_targets_and_pictures(tmp_path: Path) -> None:
    report = EvaluationReport(title="Evaluation", method="ugc", clips=(result("video/one.mp4"),), facts=(Fact("seed", "7"),))
    text = write_evaluation_report(report, tmp_path).read_text()
    for shown in (
        "24.8",
        "22.5",
        "3.25",
        "2.38 … 2.62",
        "video/one.mp4",
        "<th>ssiou</th>",
        "0.777",
        "lag +1",
        "lag +0 (no lag is applied: the confidence is 0.10)",
        "2 passed, 1 lost",
    ):
        assert shown in text, shown
    assert "full mouth_psnr_db &gt;= M + 1.5" in text
    assert text.count("<tr><td>") >= 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "index.html",
        "00_video_one_mp4_mouths.jpg",
        "00_video_one_mp4_faces.jpg",
        "00_video_one_mp4_opening.svg",
        "00_video_one_mp4_truth_and_full.mp4",
    }


def test_pass_and_fail_are_shown_as_they_are(tmp_path: Path) -> None:
    report = EvaluationReport(title="Evaluation", method="ugc", clips=(result_without_pictures("a"), result_without_pictures("b")))
    text = write_evaluation_report(report, tmp_path).read_text()
    # full: PSNR M + 2.25 passes twice (mean and worst clip), LMD .77 of M's, opening r, spread, sharpness, frame difference;
    # spread of the width, fastest step, opening in silence, delay, and both shifts, .9 ms here.
    assert text.count('<span class="good">pass</span>') == 13
    assert text.count('<span class="bad">fail</span>') == 0
    assert text.count("not measured") == len(TARGETS) - 13


def test_delay_is_median_over_clips() -> None:
    """One clip that is far off does not move the delay of the others."""
    clips = []
    for name, delay in (("a", 4.0), ("b", 6.0), ("c", 190.0)):
        made = result_without_pictures(name)
        full = made.variants["full"]
        full = replace(full, metrics={**full.metrics, "delay_ms": delay, "closure_shift_ms": delay})
        clips.append(replace(made, variants={"full": full}))
    means = variant_means(clips, "full")
    assert (means["delay_ms"], means["closure_shift_ms"]) == pytest.approx((6.0, 200.0 / 3.0))
    checks = {check.target.metric: check for check in check_targets(clips) if check.target.variant == "full"}
    assert (checks["delay_ms"].value, checks["delay_ms"].reached) == (6.0, True)
    assert checks["closure_shift_ms"].reached is False


def test_head_table_with_controls(tmp_path: Path) -> None:
    """A moved head has its table with controls and a plot."""
    poses = np.cumsum(np.full((50, 6), 0.01), axis=0)
    scores_of = {row: dict.fromkeys(HEAD_FIGURES, value) for row, value in zip(HEAD_ROWS, (0.9125, 0.95, 0.75, 0.625), strict=True)}
    head = HeadMotionResult(scores_of, HeadMotion(poses, poses, poses, poses, np.arange(50)), 75)
    clips = (replace(result_without_pictures("a"), head_motion=head), result_without_pictures("b"))
    report = EvaluationReport(title="Evaluation", method="headpose", clips=clips)
    text = write_evaluation_report(report, tmp_path).read_text()
    for shown in ("0.912", "0.750", "control: still head", "control: own poses shuffled", "velocity HS, own range"):
        assert text.count(shown) >= 2, f"{shown}: in the means and for the clip"
    assert {path.name for path in tmp_path.glob("*_head.svg")} == {"00_a_head.svg"}


def test_a_bar_places_the_value_between_its_bounds() -> None:
    target = MetricTarget("full", "sharpness_ratio", low=0.7, high=1.3)
    inside = bar_of(TargetCheck(target, 1.0, True))
    assert inside.low_percent < inside.value_percent < inside.high_percent
    assert inside.value_percent == pytest.approx(50.0)
    below = bar_of(TargetCheck(target, 0.4, False))
    assert below.value_percent < below.low_percent
    unknown = bar_of(TargetCheck(target, float("nan"), None))
    assert unknown.value_percent == 0.0
