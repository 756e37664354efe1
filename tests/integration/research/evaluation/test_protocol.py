import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.cli.evaluate import show_scores
from research.evaluation import protocol
from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.mouth_metrics import Closures
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from research.evaluation.results import to_json, write_json
from research.evaluation.targets import MetricTarget, check_target, check_targets
from research.evaluation.types import COSTS, METRICS, ClipResult, FrameRange
from tests.unit.research.evaluation.drawn_clip import DrawnClip, read_mouths

QUICK = EvaluationSettings(
    variants=("mean_mouth", "wrong_audio", "full"),
    piece_frames=40,
    bootstrap=BootstrapSettings(replicates=40),
    sample_count=3,
    video_frames=10,
)

SEEN = {
    *("tint_alarms", "nostril_alarms", "low_contrast_excess", "popping_ratio", "seam_sharpness_ratio", "lip_jump_ratio"),
    "clothing_moved",
}
"""Metrics of what eyes see. A drawing may be too plain for them."""

FULL = EvaluationSettings(variants=("full",), piece_frames=40, bootstrap=BootstrapSettings(replicates=40))


@pytest.fixture(scope="module")
def result() -> ClipResult:
    return evaluate_clip(DrawnClip(gain=1.0, num_frames=75), read_mouths, settings=QUICK)


def test_scores_of_variants(result: ClipResult) -> None:
    """A perfect method reaches the ceiling, the mean mouth knows nothing of the speech, and wrong audio obeys its command only."""
    full = result.variants["full"].metrics
    assert full["mouth_psnr_db"] == full["face_psnr_db"] == 100.0
    assert full["mouth_ssim"] == pytest.approx(1.0, abs=1e-6)
    assert full["mouth_lmd_px"] == 0.0
    for name in ("mouth_opening_correlation", *(ratio for ratio in METRICS if ratio.endswith("_ratio"))):
        assert full[name] == pytest.approx(1.0, nan_ok=name in SEEN), name
    assert result.variants["full"].paper["ssiou"] == pytest.approx(1.0)
    assert full["vowel_shift_ms"] == full["closure_shift_ms"] == pytest.approx(0.0, abs=1e-6)
    assert full["delay_ms"] == pytest.approx(0.0, abs=1.0)
    assert full["silence_opening"] == 0.0
    for other in ("mean_mouth", "wrong_audio"):
        assert np.isnan(result.variants[other].metrics["silence_opening"])
    assert np.isnan(result.variants["wrong_audio"].metrics["vowel_shift_ms"])
    mean = result.variants["mean_mouth"].metrics
    assert mean["mouth_opening_correlation"] == 0.0
    assert np.isnan(mean["delay_ms"])
    assert mean["opening_spread_ratio"] == 0.0
    assert mean["frame_difference_ratio"] == mean["skin_flicker_ratio"] == 0.0
    assert mean["mouth_lmd_px"] > 0.3
    wrong = result.variants["wrong_audio"]
    assert abs(wrong.metrics["mouth_opening_correlation"]) < 0.35
    assert wrong.paper["commanded_opening_correlation"] > 0.98
    assert wrong.frames == 60


@pytest.mark.long
def test_late_closing_mouth_shows() -> None:
    opened = [evaluate_clip(DrawnClip(late=late), read_mouths, settings=FULL) for late in (4, 5)]
    measured = [each.variants["full"].metrics["silence_opening"] for each in opened]
    # One of two silences, half of the range.
    assert measured == pytest.approx([0.0, 0.25])


@pytest.mark.long
def test_one_frame_lag_is_measured() -> None:
    """A dub that follows the video by a frame is late by a frame."""
    full = evaluate_clip(DrawnClip(frames_late=1), read_mouths, settings=FULL).variants["full"].metrics
    assert full["vowel_shift_ms"] == pytest.approx(40.0, abs=6.0)
    assert full["closure_shift_ms"] == pytest.approx(40.0, abs=6.0)


@pytest.mark.parametrize("lag_frames", [0, 1])
def test_delay_not_hidden_by_lag(lag_frames: int) -> None:
    """A delay of 40 ms shows at the true time, whether or not the measured lag has the same error."""
    settings = replace(FULL, variants=("full", "full_aligned"), bootstrap=BootstrapSettings(replicates=2))
    found = evaluate_clip(DrawnClip(frames_late=1, lag_frames=lag_frames), read_mouths, settings=settings)
    full, aligned = (found.variants[name].metrics for name in settings.variants)
    assert full["delay_ms"] == pytest.approx(40.0, abs=2.0)
    assert full["mouth_opening_correlation"] < 0.75
    assert full["mouth_lmd_px"] > 0.3
    if lag_frames:
        assert aligned["delay_ms"] == pytest.approx(0.0, abs=2.0)
        assert aligned["mouth_opening_correlation"] > 0.99
    else:
        assert aligned["delay_ms"] == full["delay_ms"]
    (missed,) = [check for check in check_targets([found]) if check.target.metric == "delay_ms"]
    assert missed.reached is False


@pytest.mark.long
def test_foreign_speech_variants_are_means() -> None:
    clip = DrawnClip(num_frames=50)
    settings = replace(QUICK, variants=("full", "wrong_audio_kept"))
    wrong = evaluate_clip(clip, read_mouths, settings=settings).variants["wrong_audio_kept"]
    assert wrong.frames == 40
    assert abs(wrong.metrics["mouth_opening_correlation"]) < 0.35
    asked = [variant for _, variant in clip.asked]
    assert asked.count("wrong_audio_kept") == 10 * asked.count("full")


def test_pieces_do_not_cross_folds() -> None:
    """Both folds test two fifths of the frames, in pieces that do not cross folds."""
    clip = DrawnClip()
    settings = EvaluationSettings(variants=("full",), piece_frames=40, bootstrap=BootstrapSettings(replicates=2))
    found = evaluate_clip(clip, read_mouths, settings=settings)
    pieces = ((75, 115), (115, 125), (0, 40), (40, 50))
    assert [frames for frames, _ in clip.asked] == [FrameRange(*piece) for piece in pieces]
    assert found.variants["full"].frames == 100
    assert found.variants["full"].paper["fitting_error"] == pytest.approx((40 * 40 + 10 * 10 + 40 * 40 + 10 * 10) / 100)


def test_enrolment_seconds_test_last_fifth() -> None:
    clip = DrawnClip()
    settings = EvaluationSettings(variants=("full",), bootstrap=BootstrapSettings(replicates=2), enrol_seconds=2.0)
    found = evaluate_clip(clip, read_mouths, settings=settings)
    assert [(each.fold.enrol, each.fold.test) for each in found.folds] == [(FrameRange(50, 100), FrameRange(100, 125))]
    assert found.variants["full"].frames == 25
    assert found.cost["actor_mib"] == 3.0


def test_the_cut_into_pieces_changes_no_mean() -> None:
    settings = [replace(FULL, piece_frames=length, bootstrap=BootstrapSettings(replicates=2)) for length in (250, 24)]
    whole, cut = (evaluate_clip(DrawnClip(gain=0.7, num_frames=75), read_mouths, settings=each) for each in settings)
    a, b = whole.variants["full"].metrics, cut.variants["full"].metrics
    # The first frame of a piece has no frame before it. The person's own mouth is learned from one piece.
    for name in set(METRICS) - {"frame_difference_ratio", "skin_flicker_ratio", "closure"} - SEEN:
        assert a[name] == pytest.approx(b[name]), name


@pytest.mark.long
def test_half_motion_inside_interval() -> None:
    """Half the motion shows in the spread and lies inside its interval."""
    found = evaluate_clip(DrawnClip(gain=0.5), read_mouths, settings=FULL).variants["full"]
    assert found.metrics["opening_spread_ratio"] == pytest.approx(0.5, abs=0.05)
    assert found.metrics["mouth_opening_correlation"] > 0.98
    interval = found.intervals["opening_spread_ratio"]
    assert interval.low <= found.metrics["opening_spread_ratio"] <= interval.high
    assert interval.high - interval.low < 0.2


def test_passed_through_frames_not_measured() -> None:
    """Passed through frames are not measured and lost faces are counted."""
    clip = DrawnClip(gain=0.5, passed=(10, 11, 80), lost=(20, 90))
    found = evaluate_clip(clip, read_mouths, settings=FULL).variants["full"]
    assert (found.frames, found.passed_through, found.lost_faces) == (97, 3, 2)
    assert np.isfinite(found.metrics["mouth_lmd_px"])


def test_bilabials_at_shown_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bilabials are sought on the frames that were shown at their time."""

    class Halting(DrawnClip):
        """The second half is shown ten times as slowly as the first."""

        @property
        def frame_seconds(self) -> np.ndarray:
            return np.cumsum(np.where(np.arange(self.num_frames) < self.num_frames // 2, 0.02, 0.2)) - 0.02

    asked: list[np.ndarray] = []

    def found(truth: np.ndarray, result: np.ndarray, times_s: np.ndarray, events_s: np.ndarray) -> Closures:
        asked.append(times_s)
        return Closures(np.ones(1, np.bool_), np.ones(1, np.bool_))

    monkeypatch.setattr(protocol, "bilabial_times", lambda *_: np.zeros((1, 2)))
    monkeypatch.setattr(protocol, "closures", found)
    clip, settings = Halting(num_frames=50), replace(FULL, variants=("full", "full_aligned"))
    folds = evaluate_clip(clip, read_mouths, settings=settings, transcript="bib").folds
    expected = []
    for each in folds:
        shown = clip.frame_seconds[each.fold.test.start : each.fold.test.stop]
        expected += [shown, shown + 0.04 * each.lag_frames]
    for times, wanted in zip(asked, expected, strict=True):
        np.testing.assert_allclose(times, wanted)


def test_lag_report_and_targets(result: ClipResult) -> None:
    """The longer enrolment part gives the lag, the report has pictures and curves, and targets compare with the mean mouth."""
    assert result.lag_frames == 1
    assert [fold.lag_frames for fold in result.folds] == [1, -1]
    assert [fold.lag_doubt for fold in result.folds] == ["", "made up"]
    assert result.sample_frames == (50, 60, 70)
    assert result.truth.crops.shape == (3, 256, 256, 3)
    assert result.samples["full"].opening.shape == (30,)
    assert result.samples["full"].commanded is not None
    assert result.video.shape == (10, 256, 512, 3)
    gain = check_target([result], MetricTarget("full", "mouth_psnr_db", low=1.5, against="difference"))
    assert gain.reached is True
    assert gain.value == pytest.approx(100.0 - result.variants["mean_mouth"].metrics["mouth_psnr_db"])
    lmd = check_target([result], MetricTarget("mean_mouth", "mouth_lmd_px", high=0.85, against="ratio"))
    assert lmd.value == pytest.approx(1.0)
    assert lmd.reached is False
    assert check_target([result], MetricTarget("full", "closure", low=0.8)).reached is None


def test_a_lag_that_is_not_applied_is_told(result: ClipResult, capsys: pytest.CaptureFixture[str]) -> None:
    show_scores([result])
    assert "drawn.mp4, enrolled on frames 30 to 74: no lag is applied: made up" in " ".join(capsys.readouterr().err.split())


def test_the_same_evaluation_gives_the_same_numbers() -> None:
    first, again = (evaluate_clip(DrawnClip(gain=0.8, num_frames=50), read_mouths, settings=FULL) for _ in range(2))
    assert set(first.cost) == set(COSTS)
    # Times and memory are the machine's.
    assert to_json([replace(first, cost={})], "dubstage") == to_json([replace(again, cost={})], "dubstage")


def test_json_has_the_agreed_shape(result: ClipResult, tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "result.json", [result], "dubstage")
    document = json.loads((tmp_path / "deep" / "result.json").read_text())
    (clip,) = document["clips"]
    assert (clip["clip"], clip["lag_frames"]) == ("drawn.mp4", 1)
    assert [fold["lag_doubt"] for fold in clip["folds"]] == ["", "made up"]
    assert set(clip["variants"]) == {"mean_mouth", "wrong_audio", "full"}
    of_full = {"closure", "silence_opening", "vowel_shift_ms", "closure_shift_ms"}
    for name, variant in clip["variants"].items():
        assert set(METRICS) <= set(variant)
        measured = set(METRICS) - (of_full if name != "full" else {"closure"}) - SEEN
        measured -= {"delay_ms"} if name == "mean_mouth" else set()
        assert all(isinstance(variant[metric], float) for metric in measured)
        assert variant["closure"] is None
        assert set(variant["intervals"]) - SEEN == measured - {"silence_opening"}
        assert "photometric_error" in variant["paper"]
    assert document["means"]["full"]["mouth_psnr_db"] == 100.0
    assert {"target", "value", "reached"} == set(document["targets"][0])
