"""HS and its controls against computations by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.evaluation.head_motion import (
    ANGLES,
    VELOCITIES,
    Binning,
    angular_velocities,
    head_motion_score,
    histogram,
    histogram_distance,
    likeness,
    main,
    shuffled_head,
    still_head,
)
from services.common.array_types import Float64
from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import encode_arrays

FOUR = Binning(0.0, 4.0, 4)


def poses(pitch_degrees: list[float] | Float64) -> Float64:
    """Head-pose vectors that pitch by these degrees, and do nothing else."""
    vectors = np.tile([0.0, 0.0, 0.0, 100.0, 80.0, 1.2], (len(pitch_degrees), 1))
    vectors[:, 0] = np.radians(pitch_degrees)
    return vectors


def swaying(frames: int = 250) -> Float64:
    time = np.arange(frames) / 25.0
    vectors = poses(8.0 * np.sin(2.0 * np.pi * 0.4 * time))
    vectors[:, 1] = np.radians(5.0 * np.sin(2.0 * np.pi * 0.3 * time + 1.0))
    vectors[:, 2] = np.radians(3.0 * np.sin(2.0 * np.pi * 0.5 * time + 2.0))
    return vectors


def test_values_fall_into_bins() -> None:
    """Values fall into their bins and outside ones into the last."""
    shares = histogram(np.array([0.5, 1.0, 1.99, 9.0, -3.0]), FOUR)
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.0, 0.2])


def test_single_bin_distance() -> None:
    """The distance of two single bins is how far they lie apart."""
    first, second = histogram(np.array([0.5]), FOUR), histogram(np.array([3.5]), FOUR)
    assert histogram_distance(first, second, FOUR) == pytest.approx(3.0)


def test_the_distance_is_the_least_earth_moved() -> None:
    # Half of [.5 .5 0 0] stays in bin 1, the other half goes from bin 0 to bin 3: .5 * 3.
    first, second = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.5, 0.0, 0.5])
    assert histogram_distance(first, second, FOUR) == pytest.approx(1.5)


def test_the_ends_of_the_range_score_zero() -> None:
    low, high = np.full((5, 3), -44.5), np.full((5, 3), 44.5)
    found = likeness(low, high, ANGLES)
    assert found.score == pytest.approx(1.0 - 89.0 / 90.0)
    assert found.own_range == 0.0


def test_other_posture_loses_range() -> None:
    """A head that is held otherwise loses the angle over the range."""
    real, turned = poses([0.5, 1.5] * 20), poses([9.5, 10.5] * 20)
    score = head_motion_score(turned, real)
    assert score.pose.axes[0] == pytest.approx(1.0 - 9.0 / 90.0)
    assert score.pose.axes[1:] == (1.0, 1.0)
    assert score.pose.score == pytest.approx((1.0 - 0.1 + 2.0) / 3.0)
    # The real head's own range is a degree: nine times that is no likeness at all.
    assert score.pose.axes_own_range == (0.0, 1.0, 1.0)
    assert score.velocity.score == pytest.approx(1.0)


def test_own_range_is_stricter() -> None:
    """Own range is stricter by the ratio of the ranges."""
    real = poses(np.linspace(-9.5, 9.5, 20))
    shifted = poses(np.linspace(-7.5, 11.5, 20))
    score = head_motion_score(shifted, real).pose
    assert 1.0 - score.axes[0] == pytest.approx(2.0 / 90.0)
    assert 1.0 - score.axes_own_range[0] == pytest.approx(2.0 / 19.0)


def test_velocity_is_in_degrees_a_second() -> None:
    turning = poses([0.0, 1.0, 2.0, 1.0])
    found = angular_velocities(turning, np.ones(4, np.bool_), 25.0)
    np.testing.assert_allclose(found[:, 0], [25.0, 25.0, -25.0], atol=1e-9)
    twice = angular_velocities(turning, np.ones(4, np.bool_), 50.0)
    np.testing.assert_allclose(twice, 2.0 * found)


def test_faceless_frames_tell_nothing() -> None:
    """Frames without a face tell neither angle nor velocity."""
    usable = np.array([True, True, False, True, True])
    spoilt = poses([0.5, 0.5, 40.0, 0.5, 0.5])
    score = head_motion_score(spoilt, poses([0.5] * 5), generated_usable=usable)
    assert score.pose.score == 1.0
    assert score.velocity.score == 1.0
    assert len(angular_velocities(spoilt, usable, 25.0)) == 2


def test_a_head_is_most_like_itself() -> None:
    score = head_motion_score(swaying(), swaying())
    assert (score.pose.score, score.velocity.score) == (1.0, 1.0)


def test_the_controls_fail_where_they_should() -> None:
    real = swaying()
    generated, still, shuffled = (head_motion_score(poses, real) for poses in (swaying(240), still_head(real), shuffled_head(real)))
    assert shuffled.pose.score == pytest.approx(1.0)
    assert shuffled.velocity.own_range < still.velocity.own_range < generated.velocity.own_range
    assert still.pose.own_range < 0.8 < generated.pose.own_range
    assert VELOCITIES.span == 200.0


def test_controls_mean_and_shuffled() -> None:
    """Controls are the mean pose and the same poses in a seeded order."""
    real = swaying()
    np.testing.assert_allclose(still_head(real)[7], real.mean(axis=0))
    shuffled = shuffled_head(real)
    assert not np.array_equal(shuffled, real)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(real, axis=0))
    np.testing.assert_array_equal(shuffled, shuffled_head(real))
    assert not np.array_equal(shuffled, shuffled_head(real, seed=1))


@pytest.mark.parametrize("broken", [np.zeros((5, 5)), np.full((5, 6), np.nan), np.zeros((1, 6))])
def test_no_head_motion_refused(broken: Float64) -> None:
    """An input that is not a head in motion is refused."""
    with pytest.raises(InvalidRequestError, match="generated"):
        head_motion_score(broken, swaying())


def test_a_file_of_poses_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "poses.safetensors"
    file.write_bytes(encode_arrays({"a/real": swaying(), "a/known": swaying(), "a/made": swaying()}, {"frame_rate": "25"}))
    monkeypatch.setattr("sys.argv", ["head_motion", str(file)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["made", "known", "still", "shuffled"]
    assert "HS 1.000 (own range 1.000)" in lines[0]
