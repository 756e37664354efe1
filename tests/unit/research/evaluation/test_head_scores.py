from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.head_motion import HEAD_FIGURES, HEAD_ROWS, score_heads
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from research.evaluation.results import write_json
from research.evaluation.targets import check_targets
from research.evaluation.types import ClipResult, HeadMotion
from tests.unit.research.evaluation.drawn_clip import DrawnClip, read_mouths


def turning(frames: int, degrees: float, period: int = 50) -> np.ndarray:
    poses = np.tile([0.0, 0.0, 0.0, 100.0, 100.0, 1.0], (frames, 1))
    poses[:, 1] = np.radians(degrees) * np.sin(np.arange(frames) * 2.0 * np.pi / period)
    return poses


def motion(output: np.ndarray, real: np.ndarray | None = None) -> HeadMotion:
    truth = turning(100, 10.0) if real is None else real
    return HeadMotion(truth, turning(len(truth), 5.0), output, turning(200, 10.0), np.arange(len(truth)))


def test_own_motion_scores_one() -> None:
    """The footage's own motion scores one and both controls less."""
    scores = score_heads([motion(turning(100, 10.0))], 25.0, 0).scores
    assert set(scores) == set(HEAD_ROWS)
    assert all(scores["output"][name] == pytest.approx(1.0) for name in HEAD_FIGURES)
    # A still head: yaw is 2 / pi * 10 degrees off on average, and only yaw of three angles; 90 degrees normalise.
    assert scores["still"]["hs"] == pytest.approx(1.0 - 2.0 / np.pi * 10.0 / 90.0 / 3.0, abs=0.003)
    assert scores["shuffled"]["hs"] == pytest.approx(1.0, abs=0.01)
    assert scores["shuffled"]["hs_velocity"] < scores["still"]["hs_velocity"] < scores["output"]["hs_velocity"]
    assert scores["still"]["hs_own_range"] < scores["predicted"]["hs_own_range"] < 1.0


def test_faceless_frames_do_not_count() -> None:
    """Frames in which the footage shows no face do not count."""
    real = turning(100, 10.0)
    real[40:60] = np.nan
    with_gap = score_heads([motion(turning(100, 10.0), real)], 25.0, 0).scores["output"]
    assert all(np.isfinite(value) for value in with_gap.values())
    assert with_gap["hs_velocity"] > 0.98, "the step over the gap is no motion"


def test_folds_count_by_their_frames() -> None:
    good, still = motion(turning(100, 10.0)), motion(np.tile(turning(1, 0.0), (100, 1)))
    short = motion(turning(50, 10.0), turning(50, 10.0))
    one, other = (score_heads([fold], 25.0, 0).scores["output"]["hs"] for fold in (good, still))
    assert score_heads([good, still], 25.0, 0).scores["output"]["hs"] == pytest.approx((one + other) / 2)
    assert score_heads([still, short], 25.0, 0).scores["output"]["hs"] == pytest.approx((2 * other + 1.0) / 3)


@pytest.fixture(scope="module")
def moved() -> ClipResult:
    settings = EvaluationSettings(variants=("mean_mouth", "full"), bootstrap=BootstrapSettings(replicates=2))
    return evaluate_clip(DrawnClip(num_frames=125, moves_head=True), read_mouths, settings=settings)


def test_evaluation_scores_head_methods(moved: ClipResult) -> None:
    """An evaluation has head scores for methods that move the head."""
    assert moved.head_motion is not None
    assert moved.head_motion.first_frame == 75
    assert len(moved.head_motion.motion.real) == 50
    assert moved.variants["full"].paper["hs"] == moved.head_motion.scores["output"]["hs"] > 0.99
    assert "hs" not in moved.variants["mean_mouth"].paper
    (head_check,) = [check for check in check_targets([moved]) if check.target.metric == "hs"]
    assert head_check.reached is True


def test_and_none_for_the_others() -> None:
    settings = EvaluationSettings(variants=("full",), bootstrap=BootstrapSettings(replicates=2))
    found = evaluate_clip(DrawnClip(num_frames=40), read_mouths, settings=settings)
    assert found.head_motion is None
    assert "hs" not in found.variants["full"].paper
    assert all(check.target.metric != "hs" for check in check_targets([found]))


def test_json_has_clip_and_mean(moved: ClipResult, tmp_path: Path) -> None:
    """JSON has every row for the clip and the mean."""
    write_json(tmp_path / "result.json", [moved, moved], "headpose")
    document = json.loads((tmp_path / "result.json").read_text())
    for rows in (document["head_motion"], document["clips"][1]["head_motion"]):
        assert list(rows) == list(HEAD_ROWS)
        assert list(rows["still"]) == list(HEAD_FIGURES)
    assert document["head_motion"] == document["clips"][0]["head_motion"]
