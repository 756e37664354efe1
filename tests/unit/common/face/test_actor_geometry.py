"""Tests of an actor's geometry: render box and mask.

They do not depend on how far the mouth is open (Saunders and Namboodiri, appendix A.2).
"""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.actor_geometry import (
    ANCHORS,
    lower_face_mask,
    lower_face_polygon,
    measure_geometry,
)
from services.common.face.crops import (
    HeadPose,
    apply_affine,
    box_from_frame,
    fit_head_pose,
    head_to_box,
    to_frame,
    to_head_space,
)
from services.common.face.landmarks import JAW
from tests.unit.common.face.test_drawing import DRAWING, MOUTH, opened, pose

OPENINGS = (0.0, 1.0, 2.5, 4.0)
POSES = [pose(), pose(pitch=12.0, yaw=-20.0, roll=9.0, scale=1.7)]
FACES = [DRAWING.shape_of(opened(amount)).astype(np.float32) for amount in OPENINGS]
"""One face, the mouth shut to wide open: all 468 points of the mesh."""
RANDOM = np.random.default_rng(3)


def tracked(place: HeadPose) -> list[HeadPose]:
    """Head poses that are fitted to the faces' landmarks."""
    return [fit_head_pose(to_frame(face, place)) for face in FACES]


@pytest.mark.parametrize("place", POSES)
def test_box_independent_of_opening(place: HeadPose) -> None:
    """The box is the same for a shut and a wide open mouth."""
    corners = np.array([[0.0, 0.0], [400.0, 0.0], [0.0, 400.0]])
    boxes = [apply_affine(box_from_frame(found), corners) for found in tracked(place)]
    # The expressions of the model move the rigid points by a few hundredths of a pixel.
    assert np.abs(np.array(boxes) - boxes[0]).max() < 0.05
    chins = [apply_affine(box_from_frame(place), to_frame(face, place))[152, 1] for face in FACES]
    assert chins[-1] - chins[0] > 8.0


@pytest.mark.parametrize("place", POSES)
def test_mask_independent_of_opening(place: HeadPose) -> None:
    """The mask is the same for a shut and a wide open mouth."""
    found = tracked(place)
    heads = [to_head_space(to_frame(face, place), one) for face, one in zip(FACES, found, strict=True)]
    geometry = measure_geometry(np.stack([head[MOUTH] for head in heads]), np.stack([head[list(ANCHORS)] for head in heads]))
    masks = np.stack([lower_face_mask(geometry, one) for one in found]).astype(int)
    # The outline of the mask may change a pixel here and there.
    assert (masks != masks[0]).mean() < 0.01
    assert np.abs(masks - masks[0]).max() <= 40


@pytest.mark.parametrize("place", POSES)
def test_mask_holds_widest_chin(place: HeadPose) -> None:
    """The mask holds the chin of the widest mouth."""
    geometry = measure_geometry(np.stack([face[MOUTH] for face in FACES]), np.stack([face[list(ANCHORS)] for face in FACES]))
    lowest = lower_face_polygon(geometry, place)[:, 1].max()
    chins = [head_to_box(face[list(JAW)], place)[:, 1].max() for face in FACES]
    assert lowest >= max(chins) - 1.0
    assert lowest > chins[0] + 8.0
