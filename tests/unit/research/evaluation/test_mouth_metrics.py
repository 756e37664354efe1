from __future__ import annotations

import numpy as np
import pytest

from research.evaluation import mouth_metrics as mouth
from services.common.face.crops import head_template
from services.common.face.landmarks import INNER_LOWER_MIDDLE, LIP_CORNERS, LIPS_INNER, LIPS_OUTER

TIME = np.arange(100) / 25.0


def faces(openings: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Face meshes in crop pixels: the mean head with its lower inner lip moved down by `openings`."""
    mesh = np.zeros((len(openings), 478, 3), np.float32)
    mesh[:, :468] = head_template() + np.array([128.0, 160.0, 0.0])
    mesh[:, list(INNER_LOWER_MIDDLE), 1] += openings[:, None]
    mesh[..., 0] += shift
    return mesh


def test_opening_grows_by_what_the_lower_lip_moves() -> None:
    track = mouth.mouth_track(faces(np.array([0.0, 5.0, 10.0])))
    assert track.lips.shape == (3, 40, 2)
    assert track.opening[2] - track.opening[1] == pytest.approx(5.0, abs=0.2)
    assert np.allclose(track.width, track.width[0])


def test_lmd_of_a_sideways_shift_is_the_shift() -> None:
    still = mouth.mouth_track(faces(np.zeros(3)))
    moved = mouth.mouth_track(faces(np.zeros(3), shift=2.5))
    assert mouth.landmark_distance(still, moved) == pytest.approx(np.full(3, 2.5), abs=1e-3)


def test_lmd_counts_lips_only() -> None:
    a, b = faces(np.zeros(1)), faces(np.zeros(1))
    outside = np.setdiff1d(np.arange(478), LIPS_OUTER + LIPS_INNER)
    b[:, outside] += 30.0
    assert mouth.landmark_distance(mouth.mouth_track(a), mouth.mouth_track(b))[0] == 0.0


def test_a_lost_face_is_unknown() -> None:
    meshes = faces(np.zeros(3))
    meshes[1] = np.nan
    assert mouth.mouth_track(meshes).tracked.tolist() == [True, False, True]


def test_width_follows_the_corners() -> None:
    meshes = faces(np.zeros(2))
    meshes[1, LIP_CORNERS[1], 0] += 6.0
    width = mouth.mouth_track(meshes).width
    assert width[1] - width[0] == pytest.approx(6.0, abs=0.1)


def test_spread_ratio_is_the_gain_of_the_motion() -> None:
    wave = 5 + np.sin(TIME * 7)
    assert mouth.spread_ratio(wave, 5 + 0.6 * np.sin(TIME * 7)) == pytest.approx(0.6)
    assert np.isnan(mouth.spread_ratio(np.ones(100), wave))


def test_ssiou_is_area_overlap() -> None:
    """SSIoU is overlap of the areas under the curves."""
    assert mouth.speaking_style_iou(np.full(10, 4.0), np.full(10, 4.0)) == 1.0
    assert mouth.speaking_style_iou(np.full(10, 4.0), np.full(10, 1.0)) == pytest.approx(0.25)
    assert mouth.speaking_style_iou(np.array([2.0, 0.0]), np.array([0.0, 2.0])) == 0.0


def test_closure_where_truth_closes() -> None:
    """Closure asks the result only where the truth closes."""
    truth, result = np.full(100, 8.0), np.full(100, 8.0)
    truth[[10, 30, 50]] = 0.5
    result[[10, 31, 80]] = 0.5
    events = np.array([[t / 25.0, t / 25.0 + 0.03] for t in (10, 30, 50, 80)])
    found = mouth.closures(truth, result, TIME, events)
    assert found.truth.tolist() == [True, True, True, False]
    assert found.result.tolist() == [True, True, False, True]
    assert found.share == pytest.approx(2 / 3)


def test_closure_far_from_the_phone_does_not_count() -> None:
    truth, result = np.full(100, 8.0), np.full(100, 8.0)
    truth[30] = result[34] = 0.5
    assert mouth.closures(truth, result, TIME, np.array([[1.2, 1.23]])).share == 0.0


def test_results_share_bilabials() -> None:
    """All results of one truth have the same bilabials."""
    truth, lost = np.full(100, 8.0), np.full(100, 0.5)
    truth[[10, 30]] = 0.5
    lost[25:35] = np.nan
    events = np.array([[t / 25.0, t / 25.0 + 0.03] for t in (10, 30, 500)])
    assert mouth.closures(truth, truth, TIME, events).truth.tolist() == [True, True]
    found = mouth.closures(truth, lost, TIME, events)
    assert found.truth.tolist() == [True, False]
    assert found.share == 1.0


def test_closure_is_unknown_without_closed_truth() -> None:
    open_mouth = np.full(100, 8.0)
    assert np.isnan(mouth.closures(open_mouth, open_mouth, TIME, np.array([[1.0, 1.1]])).share)


def test_error_relative_to_face_diagonal() -> None:
    """The normalised mean error is a share of the diagonal of the face."""
    mesh = faces(np.zeros(3))
    assert mouth.layout_points(mesh).shape == (3, 216, 3)
    moved = mesh.copy()
    moved[1, :, 0] += 5.0
    moved[2] = np.nan
    diagonal = float(np.linalg.norm(np.ptp(mouth.layout_points(mesh[0])[:, :2], axis=0)))
    found = mouth.normalised_mean_error(mesh, moved)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(5.0 / diagonal, rel=1e-5)
    assert np.isnan(found[2])
    assert mouth.normalised_mean_error(2.0 * mesh, 2.0 * moved)[1] == pytest.approx(found[1], rel=1e-5)
