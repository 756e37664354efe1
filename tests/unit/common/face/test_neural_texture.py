"""The lower face and the inside of the mouth in a neural texture, and the texture's values at the pixels of the render box."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, head_to_box
from services.common.face.drawing import IdentityDrawing
from services.common.face.landmarks import LIPS_OUTER, MOUTH_AREA, mouth_opening
from services.common.face.neural_texture import (
    ACTOR_FORMAT,
    ARRAY_NAME,
    FACE_ROWS,
    NUM_CHANNELS,
    TEXTURE_SHAPE,
    TEXTURE_SIZE,
    NeuralSurface,
    neural_texture_from_arrays,
    sample,
)
from services.common.geometry.morphable_model import LandmarkSet
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.store.tensor_bytes import NamedArrays
from tests.refusals import raised
from tests.unit.common.face.test_drawing import DRAWING, MODEL, MOUTH, identity, opened, pose

SURFACE = NeuralSurface(identity(), MODEL)
RANDOM = np.random.default_rng(7)
TEXTURE = RANDOM.integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
FIRST_INSIDE = FACE_ROWS / TEXTURE_SIZE
POSES = [pose(), pose(yaw=25.0), pose(yaw=-25.0, pitch=12.0), pose(pitch=-15.0)]


def covered(uv: np.ndarray) -> np.ndarray:
    return np.asarray(uv[..., 0] >= 0.0)


def inside(uv: np.ndarray) -> np.ndarray:
    """Pixels that show the inside of the mouth."""
    return np.asarray(uv[..., 1] >= FIRST_INSIDE)


def teeth(uv: np.ndarray, *, upper: bool) -> np.ndarray:
    return np.asarray(inside(uv) & ((uv[..., 0] < 0.5) == upper))


def values_at(points: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Texture coordinates at box pixels."""
    rows = np.rint(points).astype(int)
    return np.asarray(uv[rows[:, 1], rows[:, 0]])


def test_a_sample_is_what_pytorch_samples() -> None:
    uv = RANDOM.uniform(0.0, 1.0, (40, 50, 2)).astype(np.float32)
    uv[:10] = -1.0
    features = torch.from_numpy(TEXTURE).permute(2, 0, 1)[None].double() / 255.0
    grid = 2.0 * torch.from_numpy(uv)[None].double() - 1.0
    expected = grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)[0].permute(1, 2, 0).numpy()
    expected[:10] = 0.0
    np.testing.assert_allclose(sample(TEXTURE, uv), expected, atol=1e-4)


def test_texel_centre_has_own_value() -> None:
    """The centre of a texel has the texel's own value."""
    rows, columns = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE]
    uv = (np.stack([columns, rows], -1).astype(np.float32) + 0.5) / TEXTURE_SIZE
    found = sample(TEXTURE, uv)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.rint(found * 255.0), TEXTURE)


def test_box_shows_lower_face() -> None:
    """The box shows the lower face and nothing of the forehead."""
    uv = SURFACE.uv_of(opened(1.0), pose())
    assert uv.shape == (BOX_SIZE, BOX_SIZE, 2)
    assert uv.dtype == np.float32
    assert (uv[~covered(uv)] == -1.0).all()
    assert uv[covered(uv)].min() > 0.0
    assert uv[covered(uv)].max() < 1.0
    assert 0.4 < covered(uv).mean() < 0.8
    lips = head_to_box(DRAWING.shape_of(opened(1.0))[list(LIPS_OUTER)], pose())
    assert covered(uv)[np.rint(lips[:, 1]).astype(int), np.rint(lips[:, 0]).astype(int)].all()


@pytest.mark.parametrize("place", POSES)
def test_mask_above_mouth_covered(place: HeadPose) -> None:
    """The mask of the lower face above the mouth is covered."""
    still = DRAWING.shape_of(opened(0.0)).astype(np.float32)
    geometry = measure_geometry(still[None, MOUTH], still[None, list(ANCHORS)])
    mask = lower_face_mask(geometry, place) > 0
    uv = SURFACE.uv_of(opened(0.0), place)
    upper_lip = int(head_to_box(still[[0]], place)[0, 1])
    assert covered(uv)[:upper_lip][mask[:upper_lip]].mean() > 0.97


def test_texel_independent_of_pose() -> None:
    """A point of the face keeps its texel in any pose and expression."""
    points = [205, 425, 50, 280, 199, 200, 43, 273]
    found = []
    for place in (pose(), pose(yaw=10.0), pose(pitch=8.0)):
        for amount in (0.0, 3.0):
            shape = DRAWING.shape_of(opened(amount))
            found.append(values_at(head_to_box(shape[points], place), SURFACE.uv_of(opened(amount), place)))
    assert np.abs(np.array(found) - found[0]).max() * TEXTURE_SIZE < 4.0


def test_scale_roll_and_place_of_the_head_cancel() -> None:
    upright = SURFACE.uv_of(opened(2.0), pose(yaw=7.0))
    other = SURFACE.uv_of(opened(2.0), pose(yaw=7.0, roll=20.0, scale=2.5))
    same = covered(upright) == covered(other)
    assert same.mean() > 0.999
    both = covered(upright) & covered(other)
    # A pixel at the edge of two triangles may show either triangle.
    assert np.median(np.abs(upright - other)[both]) < 1e-5


def test_texel_belongs_to_one_triangle() -> None:
    """Each texel of the face belongs to one triangle."""
    of_face = (SURFACE._corners < len(SURFACE._layout)).all(axis=1)
    texels = TEXTURE_SIZE * SURFACE._layout[SURFACE._corners[SURFACE._textured & of_face]].astype(np.float64)
    one, two = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
    areas = 0.5 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    assert (areas <= 0.0).all() or (areas >= 0.0).all()
    assert texels[..., 1].max() <= FACE_ROWS - 1.0


@pytest.mark.parametrize("place", POSES)
def test_skin_and_inside_of_the_mouth_never_mix(place: HeadPose) -> None:
    texture = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    texture[:FACE_ROWS, :, 0] = 255
    texture[FACE_ROWS:, : TEXTURE_SIZE // 2, 1] = 255
    texture[FACE_ROWS:, TEXTURE_SIZE // 2 :, 2] = 255
    for amount in (0.0, 1.5, 6.0):
        uv = SURFACE.uv_of(opened(amount), place)
        features = sample(texture, uv)[covered(uv)]
        np.testing.assert_allclose(np.sort(features, axis=-1), np.broadcast_to([0.0, 0.0, 1.0], features.shape), atol=1e-6)


def test_inside_fills_opening_hole() -> None:
    """The inside appears as the mouth opens and fills the hole."""
    shown = [int(inside(SURFACE.uv_of(opened(amount), pose())).sum()) for amount in (0.0, 1.0, 2.0, 4.0)]
    assert shown == sorted(shown)
    assert shown[0] < 80
    assert shown[-1] > 800
    uv = SURFACE.uv_of(opened(4.0), pose())
    picture = DRAWING.draw(DRAWING.shape_of(opened(4.0))[MOUTH], pose(), detailed=False)
    drawn = np.asarray(picture.any(-1))
    rows = slice(60, 130)
    hole = np.asarray(~drawn[rows, 50:110])
    assert covered(uv)[rows, 50:110].all()
    assert inside(uv)[rows, 50:110][hole].mean() > 0.99


def test_upper_and_lower_teeth_move() -> None:
    """Upper teeth stay with the skull and lower teeth go with the chin."""
    half, wide = (SURFACE.uv_of(opened(amount), pose()) for amount in (2.0, 4.0))
    both = teeth(half, upper=True) & teeth(wide, upper=True)
    assert both.sum() > 100
    assert np.abs(half - wide)[both].max() * TEXTURE_SIZE < 0.02
    chins = [head_to_box(DRAWING.shape_of(opened(amount))[[148, 152, 377]], pose())[:, 1].mean() for amount in (2.0, 4.0)]
    fall = chins[1] - chins[0]
    assert fall > 4.0
    shift = round(float(fall))
    before, after = half[:-shift], wide[shift:]
    lower = teeth(before, upper=False) & teeth(after, upper=False)
    assert lower.sum() > 50
    # The chin falls by a fraction of a pixel more or less than the whole pixels by which the pictures are shifted.
    assert np.abs(before - after)[lower].max() * TEXTURE_SIZE < 1.0


def test_texel_size_at_lips() -> None:
    """A texel is about a box pixel at the lips or finer."""
    uv = SURFACE.uv_of(opened(0.0), pose()) * TEXTURE_SIZE
    lips = head_to_box(DRAWING.shape_of(opened(0.0))[list(LIPS_OUTER)], pose())
    (left, top), (right, bottom) = np.floor(lips.min(0)).astype(int), np.ceil(lips.max(0)).astype(int)
    part = uv[top:bottom, left:right]
    skin = ~inside(part / TEXTURE_SIZE)
    across = np.linalg.norm(np.diff(part, axis=1), axis=-1)[skin[:, 1:] & skin[:, :-1]]
    down = np.linalg.norm(np.diff(part, axis=0), axis=-1)[skin[1:] & skin[:-1]]
    assert np.median(across) > 0.95
    assert np.median(down) > 1.2


def test_the_expression_is_that_of_the_drawn_face() -> None:
    mouth = DRAWING.shape_of(opened(2.5))[MOUTH]
    assert mouth_opening(mouth) > 4.0
    np.testing.assert_array_equal(SURFACE.expression_of(mouth), DRAWING.expression_of(mouth))
    with pytest.raises(InvalidRequestError, match=r"\[59, 3\] and finite"):
        SURFACE.expression_of(np.full((59, 3), np.nan))


def test_the_layout_is_the_same_for_all_people() -> None:
    other = NeuralSurface(identity(identity=np.full(MODEL.num_identity, 0.8, np.float32)), MODEL)
    np.testing.assert_array_equal(other._layout, SURFACE._layout)


def stored(**arrays: np.ndarray) -> NamedArrays:
    return NamedArrays(arrays, {"format": ACTOR_FORMAT})


def test_a_stored_texture_comes_back() -> None:
    np.testing.assert_array_equal(neural_texture_from_arrays(stored(**{ARRAY_NAME: TEXTURE})), TEXTURE)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (NamedArrays({ARRAY_NAME: TEXTURE}, {"format": "dubstage.mouth_bank/1"}), "not a renderer's actor"),
        (stored(actor_state=np.zeros(3, np.float32)), "has no neural texture"),
        (stored(**{ARRAY_NAME: TEXTURE[:100]}), "damaged"),
        (stored(**{ARRAY_NAME: TEXTURE.astype(np.float32)}), "damaged"),
    ],
    ids=["another artefact", "an actor without texture", "another size", "another type"],
)
def test_an_artefact_without_a_texture_is_refused(named: NamedArrays, says: str) -> None:
    with raised(InvalidRequestError, match=says, field="config.texture"):
        neural_texture_from_arrays(named, "config.texture")


def test_a_model_without_texture_coordinates_is_refused() -> None:
    plain = dataclasses.replace(MODEL, uv=np.zeros((0, 2), np.float32), uv_triangles=np.zeros((0, 3), np.int32))
    with pytest.raises(InvalidRequestError, match="has no texture coordinates"):
        NeuralSurface(identity(), plain)


def test_unknown_inner_lips_refused() -> None:
    """A model whose inner lips are not known is refused."""
    lacking = [index for index in range(MODEL.num_vertices) if index != 13]
    points = LandmarkSet.of_vertices(lacking, lacking)
    with pytest.raises(InvalidRequestError, match=r"landmarks \[13\]"):
        NeuralSurface(identity(), dataclasses.replace(MODEL, landmarks={"mediapipe": points}))


def test_a_texture_has_sixteen_channels() -> None:
    uv = SURFACE.uv_of(opened(1.0), pose())
    features = sample(TEXTURE, uv)
    assert features.shape == (BOX_SIZE, BOX_SIZE, NUM_CHANNELS)
    assert not features[~covered(uv)].any()
    assert features.min() >= 0.0
    assert features.max() <= 1.0


def test_sampled_person_is_drawn_person() -> None:
    """The person that is sampled is the person that is drawn."""
    mouth = DRAWING.shape_of(opened(3.0))[list(MOUTH_AREA)]
    drawing = IdentityDrawing(identity(), MODEL)
    uv = SURFACE.uv_of(SURFACE.expression_of(mouth), pose(yaw=12.0))
    skin = drawing.draw(mouth, pose(yaw=12.0), detailed=True).any(-1)
    assert not (covered(uv) & ~inside(uv) & ~skin).any()


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
@pytest.mark.parametrize("place", POSES)
def test_pytorch3d_gives_the_same_texture_coordinates(place: HeadPose) -> None:
    other = NeuralSurface(identity(), MODEL, backend="pytorch3d")
    for amount in (0.0, 3.0):
        ours, theirs = (each.uv_of(opened(amount), place) for each in (SURFACE, other))
        both = covered(ours) & covered(theirs)
        # Only at an outline may the rasterisers show different triangles.
        assert (covered(ours) != covered(theirs)).mean() < 0.001
        texels = TEXTURE_SIZE * np.abs(ours - theirs)[both].max(axis=-1)
        assert (texels > 0.1).mean() < 0.001
