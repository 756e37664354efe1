"""Videos whose heads are turned by planted angles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.bench.rotations import AngleMetrics, grid_triangles, turned_picture, turned_pose
from research.evaluation.measures import means_of
from services.common.face.crops import to_frame
from services.common.geometry.rasterise import rasterise
from services.common.geometry.rotations import euler_from_matrix
from tests.unit.texture.people import HEAD, LANDMARKS, POSE, a_person, a_portrait

# In this portrait red is x and green is y, so each pixel of a turned picture says where it was.
PORTRAIT = a_portrait()
NOSE, NEAR_CORNER, FAR_CORNER, BORDER = 1, 61, 291, (2, 2)
METRICS = AngleMetrics("clip", 30.0, 30.0, 28.0, 1.0, 0.9, 1.0, 0.7, 1.0, 0.8, 2.0, 5.0)


def test_grid_faces_camera_without_gaps() -> None:
    rows, columns = 4, 5
    nodes = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(1, -1, 2) * 10.0 - 1.0
    depth = np.zeros((1, rows * columns))
    seen = rasterise(nodes, depth, grid_triangles(rows, columns), 28, 38, cull="back")
    assert seen.covered.all()


def test_pose_turns_by_planted_angle() -> None:
    target = turned_pose(turned_pose(POSE, 10.0), 25.0)
    np.testing.assert_allclose(np.degrees(np.asarray(euler_from_matrix(target.rotation))), (0.0, 35.0, 0.0), atol=1e-6)
    assert (target.scale, target.translation.tolist()) == (POSE.scale, POSE.translation.tolist())


def test_unturned_picture_stays() -> None:
    same = turned_picture(PORTRAIT, LANDMARKS, POSE, POSE, a_person())
    assert np.abs(same.astype(int) - PORTRAIT).max() <= 1


@pytest.mark.parametrize("angle", [-40.0, 25.0, 45.0])
def test_face_points_land_where_geometry_says(angle: float) -> None:
    """The parts of the face that the camera still sees stand where the turned head has them, and the picture's border stays."""
    target = turned_pose(POSE, angle)
    picture = turned_picture(PORTRAIT, LANDMARKS, POSE, target, a_person())
    corner = NEAR_CORNER if angle > 0 else FAR_CORNER
    for point in (NOSE, corner):
        x, y = np.rint(to_frame(HEAD[point], target)[:2]).astype(int)
        np.testing.assert_allclose(picture[y, x, :2].astype(float), LANDMARKS[point, :2], atol=4.0)
    np.testing.assert_array_equal(picture[BORDER], PORTRAIT[BORDER])


def test_nearer_parts_hide_farther_ones() -> None:
    """At 60 degrees the nose hides the far cheek: the row of the nose shows no column between the nose and the far corner's."""
    target = turned_pose(POSE, 60.0)
    picture = turned_picture(PORTRAIT, LANDMARKS, POSE, target, a_person())
    x, y = np.rint(to_frame(HEAD[NOSE], target)[:2]).astype(int)
    row = picture[y, :, 0].astype(float)
    assert row[x] == pytest.approx(LANDMARKS[NOSE, 0], abs=4.0), "the nose is in front"
    assert not ((row > LANDMARKS[NOSE, 0] + 8) & (row < LANDMARKS[FAR_CORNER, 0] + 8)).any()


def test_mean_is_of_each_angle() -> None:
    rows = [METRICS, replace(METRICS, r=0.5), replace(METRICS, angle=45.0, r=float("nan"))]
    means = means_of(rows, "angle")
    assert [(each.clip, each.angle) for each in means] == [("mean of 2", 30.0), ("mean of 1", 45.0)]
    assert means[0].r == pytest.approx(0.6)
    assert np.isnan(means[1].r)
