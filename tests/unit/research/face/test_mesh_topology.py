"""The default model's mesh, made from the installed MediaPipe and the mean head."""

import numpy as np
import pytest

from research.face.mesh_topology import EYE_RINGS, directed_triangles, mirror_map, strip, texture_layout
from services.common.face.crops import head_template
from services.common.face.landmarks import LIPS_INNER
from services.common.geometry.morphable_model import default_model

HEAD = head_template().astype(np.float64)


def test_edges_give_committed_triangles():
    """The package's edges give the triangles of the committed model."""
    pytest.importorskip("mediapipe")
    triangles = directed_triangles()
    assert triangles.shape == (852, 3)
    assert {frozenset(t) for t in triangles.tolist()} == {frozenset(t) for t in default_model().triangles[:852].tolist()}


def test_the_mirror_pairs_left_with_right():
    mirror = mirror_map(HEAD)
    assert (mirror[mirror] == np.arange(468)).all()
    assert mirror[[33, 61, 234, 78]].tolist() == [263, 291, 454, 308]
    assert mirror[[1, 10, 13, 152]].tolist() == [1, 10, 13, 152]


@pytest.mark.parametrize("ring", [*EYE_RINGS, LIPS_INNER])
def test_hole_closed_consistently(ring):
    """A hole is closed by triangles that all turn the same way."""
    triangles = strip(ring)
    assert len(triangles) == len(ring) - 2
    sides = [tuple(int(t[i]) for i in (a, b)) for t in triangles for a, b in ((0, 1), (1, 2), (2, 0))]
    assert len(set(sides)) == len(sides)
    open_sides = {s for s in sides if s[::-1] not in sides}
    around = set(zip(ring, (*ring[1:], ring[0]), strict=True))
    assert open_sides in (around, {s[::-1] for s in around})


def test_texture_layout_of_other_head():
    """The texture layout is symmetric and without folds for another head too."""
    model = default_model()
    mirror = mirror_map(HEAD)
    shape = model.mean_shape.astype(np.float64) * [0.8, 1.1, 1.2]
    uv = texture_layout(model.triangles, shape, mirror)
    assert uv[mirror] * [-1, 1] + [1, 0] == pytest.approx(uv, abs=1e-4)
    corners = uv[model.triangles]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] < 0).all()
