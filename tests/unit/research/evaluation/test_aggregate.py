"""Scores of one variant from its runs: intervals and counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.evaluation.aggregate import BootstrapSettings, score
from research.evaluation.delays import at_delays
from research.evaluation.measures import APPEARANCE_COLUMNS, CURVE_COLUMNS, EXPRESSION_COLUMNS, PICTURE_COLUMNS, RunMeasures
from research.evaluation.mouth_metrics import Closures

FRAMES = 250
SETTINGS = BootstrapSettings(replicates=100)
COLUMNS = (
    *PICTURE_COLUMNS,
    *EXPRESSION_COLUMNS,
    *(f"{of}_{what}" for of in ("truth", "result") for what in ("gradient", "step", "skin_step", "native")),
    "mouth_lmd_px",
    "nme",
    *CURVE_COLUMNS,
    *APPEARANCE_COLUMNS,
)


def run(seed: int = 0, lost_faces: int = 0) -> RunMeasures:
    """One run whose figures wander from second to second."""
    generator = np.random.default_rng(seed)
    walk = np.convolve(generator.normal(size=FRAMES + 24), np.ones(25) / 5, "valid")
    opening = (8.0 + walk).astype(np.float32)
    closed = generator.random(40) < 0.5
    return RunMeasures(
        columns=dict.fromkeys(COLUMNS, 30.0 + walk),
        truth_opening=opening,
        result_opening=(opening + generator.normal(size=FRAMES)).astype(np.float32),
        truth_width=opening,
        result_width=opening,
        commanded=None,
        measured=np.ones(FRAMES, np.bool_),
        lost_faces=lost_faces,
        closures=Closures(np.ones(40, np.bool_), closed),
        extras={},
        delayed=at_delays(opening, 0.04 * np.arange(FRAMES)),
    )


def test_repeated_frames_narrow_nothing() -> None:
    """More speeches over the same frames make no narrower intervals."""
    of_one, of_ten = (score([run()] * speeches, speeches, SETTINGS) for speeches in (1, 10))
    for name in ("face_psnr_db", "mouth_opening_correlation", "closure"):
        one, ten = of_one.intervals[name], of_ten.intervals[name]
        assert (ten.low, ten.high) == pytest.approx((one.low, one.high)), name


def test_further_folds_make_narrower_intervals() -> None:
    one, four = (score([run(seed) for seed in range(folds)], 1, SETTINGS).intervals["face_psnr_db"] for folds in (1, 4))
    assert four.high - four.low < one.high - one.low


def test_unmeasured_speech_leaves_draws() -> None:
    """A speech without measured frames leaves the draws of its fold."""
    unmeasured = replace(run(), measured=np.zeros(FRAMES, np.bool_))
    assert score([run(), unmeasured], 2, SETTINGS).intervals == score([run()], 1, SETTINGS).intervals


def test_skin_flicker_where_quiet() -> None:
    """The flicker of the skin is measured where the real skin is quiet."""
    truth = np.concatenate([np.tile([1.0, 5.0, 5.0, 5.0], FRAMES // 4), [np.nan, np.nan]])
    steps = {"truth_skin_step": truth, "result_skin_step": np.where(truth == 1.0, 1.5, 10.0 * truth)}
    of = replace(run(), columns={**run().columns, **steps})
    assert score([of], 1, SETTINGS).metrics["skin_flicker_ratio"] == pytest.approx(1.5)


def test_counts_of_frames_are_means_over_the_speeches() -> None:
    scores = score([run(lost_faces=lost) for lost in (3, 2, 2, 0, 0, 0)], 3, SETTINGS)
    assert (scores.frames, scores.passed_through, scores.lost_faces) == (2 * FRAMES, 0, 3)
