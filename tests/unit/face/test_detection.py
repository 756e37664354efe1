from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from skimage.data import astronaut

from services.common.face.crops import HeadPose, apply_affine, fit_head_pose
from services.face.detection import (
    PATCH_SIZE,
    FaceDetector,
    FaceRegion,
    MeshNetwork,
    overlap,
    read_mesh,
    region_of_detection,
    region_of_pose,
)

MIDLINE = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 0, 13, 14, 17, 152]
NOTES = """
import sys, time
from contextlib import nullcontext
from services.face import detection
detection.quiet_stderr = nullcontext
detection.MeshNetwork()
print("made", file=sys.stderr, flush=True)
time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def networks():
    detector, mesh = FaceDetector(), MeshNetwork()
    yield detector, mesh
    detector.close()
    mesh.close()


def test_region_maps_to_patch() -> None:
    """A region maps its middle and side to the patch."""
    region = FaceRegion(200.0, 100.0, 80.0, np.radians(30.0))
    affine = region.patch_from_frame()
    half = (PATCH_SIZE - 1) / 2
    np.testing.assert_allclose(apply_affine(affine, np.array([200.0, 100.0])), [half, half], atol=1e-4)
    along = np.array([200.0 + 40 * np.cos(np.radians(30)), 100.0 + 40 * np.sin(np.radians(30))])
    np.testing.assert_allclose(apply_affine(affine, along), [half + PATCH_SIZE / 2, half], atol=1e-4)


def test_patch_follows_head_only() -> None:
    """The patch follows the head and not the mouth."""
    turn = np.radians(20.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]])
    region = region_of_pose(HeadPose(2.0, rotation, np.array([300.0, 200.0, 0.0])))
    upright = region_of_pose(HeadPose(1.0, np.eye(3), np.array([300.0, 200.0, 0.0])))
    assert np.degrees(region.angle) == pytest.approx(20.0)
    assert region.side == pytest.approx(2 * upright.side, rel=1e-6)


def test_a_mirrored_face_has_mirrored_landmarks(networks) -> None:
    """Half a pixel of the patch too much or too little would show here twofold."""
    detector, mesh = networks
    sums = []
    picture = np.ascontiguousarray(astronaut()[:320, 60:400])
    for seen in (picture, np.ascontiguousarray(picture[:, ::-1])):
        (found,) = detector.detect(seen, thorough=False)
        assert detector.confirm(seen, found)
        reading = read_mesh(mesh, seen, region_of_detection(found))
        reading = read_mesh(mesh, seen, region_of_pose(reading.pose))
        assert reading.score > 0.999
        assert fit_head_pose(reading.landmarks).scale == reading.pose.scale
        sums.append(reading.landmarks[MIDLINE, 0].mean())
    assert sum(sums) == pytest.approx(picture.shape[1] - 1, abs=0.6)


def test_noise_is_no_face(networks) -> None:
    """The mesh is sure that noise is no face."""
    noise = np.random.default_rng(0).integers(0, 255, (PATCH_SIZE, PATCH_SIZE, 3)).astype(np.uint8)
    assert networks[1](noise).score < 0.1


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0.0


def test_graph_is_open_when_made() -> None:
    """MediaPipe's threads write their notes before a graph is made, where the notes are silenced, and not later."""
    done = subprocess.run([sys.executable, "-c", NOTES], capture_output=True, text=True, check=True)
    notes, made, later = done.stderr.partition("made\n")
    assert "W0000" in notes
    assert (made, later) == ("made\n", "")
