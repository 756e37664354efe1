from __future__ import annotations

import av
import numpy as np
import pytest

from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import uv_map
from services.face.fitting.texture import Texture, draw, fill, merge, unwrap
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackOptions

SIDE = 96


@pytest.fixture(scope="module")
def layout():
    model = default_model()
    return uv_map(model.uv, model.uv_triangles, model.triangles, SIDE, SIDE)


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """A smooth pattern of three waves."""
    v, u = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2, indexing="ij")
    return np.stack([127 + 100 * np.sin(9 * u), 127 + 100 * np.cos(8 * v), 127 + 100 * np.sin(6 * (u + v))], -1).astype(np.float32)


def seen_from(degrees: float, perspective: bool, size: int = 280) -> np.ndarray:
    """The mean face turned by so much: pixels and depth."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    head = default_model().mean_shape @ rotation.T
    middle = np.array([0.5 * size, 0.6 * size])
    if not perspective:
        return np.concatenate([0.85 * head[:, :2] + middle, head[:, 2:]], 1)
    depth = head[:, 2:] + 400.0
    return np.concatenate([0.85 * 400.0 * head[:, :2] / depth + middle, depth], 1)


@pytest.mark.parametrize("perspective", [False, True])
def test_texture_from_three_views(layout, painted, perspective) -> None:
    """A painted face is recovered from three views and drawn in a fourth."""
    views = [seen_from(degrees, perspective) for degrees in (-35.0, 0.0, 35.0)]
    frames = [draw(painted, view, layout, 280, 280, perspective=perspective).picture.astype(np.uint8) for view in views]
    parts = [unwrap(frame, view, layout, perspective=perspective) for frame, view in zip(frames, views, strict=True)]
    merged = merge(parts)
    surface = layout.fragments.covered[0]
    assert (merged.weight[surface] > 0).mean() > 0.97
    well_seen = merged.weight > 0.3
    assert well_seen[surface].mean() > 0.9
    assert np.percentile(np.abs(merged.colours - painted)[well_seen], 95) < 8.0
    new = seen_from(18.0, perspective)
    wanted = draw(painted, new, layout, 280, 280, perspective=perspective)
    again = draw(fill(merged), new, layout, 280, 280, perspective=perspective)
    np.testing.assert_array_equal(again.covered, wanted.covered)
    assert np.percentile(np.abs(again.picture - wanted.picture)[wanted.covered], 95) < 8.0


def test_hidden_side_has_no_weight(layout, painted) -> None:
    """The side that a frame does not show has no weight."""
    view = seen_from(50.0, False)
    texture = unwrap(
        draw(painted, view, layout, 280, 280, perspective=False).picture.astype(np.uint8), view, layout, perspective=False
    )
    left, right = texture.weight[30:60, : SIDE // 3], texture.weight[30:60, -SIDE // 3 :]
    surface = layout.fragments.covered[0]
    shares = sorted([(left[surface[30:60, : SIDE // 3]] > 0).mean(), (right[surface[30:60, -SIDE // 3 :]] > 0).mean()])
    assert shares[0] < 0.35
    assert shares[1] > 0.95
    assert not texture.colours[texture.weight == 0].any()


def test_what_lies_beyond_the_frame_is_not_seen(layout) -> None:
    view = seen_from(0.0, False)
    view[:, 0] -= 140.0  # half the face to the left of the frame
    texture = unwrap(np.full((280, 280, 3), 90, np.uint8), view, layout, perspective=False)
    share = (texture.weight > 0)[layout.fragments.covered[0]].mean()
    assert 0.4 < share < 0.6
    assert (texture.colours[texture.weight > 0] == 90).all()


def test_merge_is_weighted_median() -> None:
    """The merge is a weighted median and ignores pixels that were not seen."""

    def texture(colour: float, weight: float) -> Texture:
        return Texture(np.full((1, 1, 3), colour, np.float32), np.full((1, 1), weight, np.float32))

    assert merge([texture(10, 1), texture(20, 1), texture(250, 1)]).colours[0, 0, 0] == 20
    assert merge([texture(10, 1), texture(20, 1), texture(250, 3)]).colours[0, 0, 0] == 250
    assert merge([texture(0, 0), texture(30, 0.1), texture(0, 0)]).colours[0, 0, 0] == 30
    unseen = merge([texture(0, 0), texture(0, 0)])
    assert (unseen.colours[0, 0, 0], unseen.weight[0, 0]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="no texture"):
        merge([])


def test_filling_keeps_seen_texels(painted) -> None:
    """Filling keeps the texels that were seen and takes the rest from around them."""
    weight = np.ones((SIDE, SIDE), np.float32)
    weight[40:47, 20:31] = 0
    weight[:, 90:] = 0
    filled = fill(Texture(np.where(weight[..., None] > 0, painted, np.float32(0)), weight))
    np.testing.assert_array_equal(filled[weight > 0], painted[weight > 0])
    assert np.abs(filled - painted)[40:47, 20:31].max() < 45
    assert filled[:, 90:].min() > 10
    assert not fill(Texture(np.zeros((3, 5, 3), np.float32), np.zeros((3, 5), np.float32))).any()


def test_real_face_unwraps_consistently(clips) -> None:
    """A real face unwrapped over a second looks like itself in another frame."""
    model = default_model()
    skin = np.ones(len(model.triangles), bool)
    skin[np.concatenate([model.regions["eyes"], model.regions["mouth_interior"]])] = False
    layout = uv_map(model.uv, model.uv_triangles[skin], model.triangles[skin], 256, 256)
    networks = Networks()
    try:
        tracker = FaceTracker(networks, TrackOptions(half_width=0))
        with av.open(str(clips.path("video/vr_face5.mp4"))) as container:
            frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(25), container.decode(video=0), strict=False)]
        points = [found.faces[0].landmarks[:468] for frame in frames for found in tracker.push(frame)]
    finally:
        networks.close()
    parts = [unwrap(frames[place], points[place], layout, perspective=False) for place in range(0, 20, 4)]
    merged = merge(parts)
    drawn = draw(fill(merged), points[24], layout, *frames[24].shape[:2], perspective=False)
    error = (drawn.picture - frames[24])[drawn.covered]
    assert drawn.covered.mean() > 0.05
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 27.0
