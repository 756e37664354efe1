"""

Pictures and weights of the render box at the samples of a plane.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gateway.compositing.planes import Composite, composite, picture_at, weight_at
from gateway.media.background import blank_picture
from gateway.media.pixels import ColourModel, ColourTags, PixelFormat, colour_model, pixel_format
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, plane_views, to_rgb
from gateway.media.types import MediaInfo, Plane, orientation
from services.common.errors import ContractBrokenError
from tests.plane_masks import plane_masks
from tests.unit.media.made_footage import Clip, make_clip

FORMATS = ["yuv420p", "yuv420p10le", "yuv422p10le", "yuv422p", "yuv444p", "yuv411p", "yuv440p", "yuva420p", "yuv420p16le"]
TAGS = [ColourTags(1, 1), ColourTags(6, 1), ColourTags(1, 2), ColourTags(9, 1)]
BLACK = np.zeros((160, 160, 3), np.uint8)
WIDTH, HEIGHT = 239, 181  # odd: the last cells are cut


def grain(size: int = 200) -> np.ndarray:
    random = np.random.default_rng(3).normal(128.0, 40.0, (size, size)).astype(np.float32)
    return cv2.GaussianBlur(random, (0, 0), 1.0)


def finest(picture: np.ndarray) -> float:
    inner = (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))[20:-20, 20:-20]
    return float(np.square(inner).mean())


def similarity(scale: float, x: float = 0.37, y: float = 0.61) -> np.ndarray:
    return np.array([[scale, 0.05 * scale, x], [-0.05 * scale, scale, y]])


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.3])
def test_structures_of_a_few_samples_keep_their_strength(scale: float) -> None:
    picture = cv2.GaussianBlur(grain(), (0, 0), 1.0 / scale)
    shape = (round(170 * scale), round(170 * scale))
    moved = picture_at(picture, similarity(scale), shape)
    back = picture_at(moved, cv2.invertAffineTransform(similarity(scale)), (160, 160))
    assert finest(back) == pytest.approx(finest(picture[:160, :160]), rel=0.12)


def test_identity_resampling() -> None:
    """A picture at its own samples is the same."""
    np.testing.assert_allclose(picture_at(grain(), np.eye(2, 3), (200, 200)), grain(), atol=1e-3)


def test_downsampling_without_aliasing() -> None:
    """A picture that is reduced much shows no false patterns."""
    lines = np.tile(np.float32([0, 0, 255, 255]), (400, 100))
    assert np.ptp(picture_at(lines, np.array([[0.26, 0, 0], [0, 0.26, 0]]), (100, 100))[5:-5, 5:-5]) < 0.35 * 255


def test_weights_end_at_border() -> None:
    """Weights end at the border and stay within their range."""
    weight = np.ones((50, 50), np.float32)
    found = weight_at(weight, np.array([[1, 0, 10.5], [0, 1, 10.5]], float), (80, 80))
    assert found[30, 30] == 1.0
    assert found[:10].max() == found[:, 62:].max() == 0.0
    assert 0.0 <= found.min() <= found.max() <= 1.0


def test_offsets_have_two_channels() -> None:
    assert weight_at(np.ones((50, 50, 2), np.float32), np.eye(2, 3), (50, 50)).shape == (50, 50, 2)


FORMATS += ["gray", "gray10le", "gbrp"]


def _noise(pixel: PixelFormat, seed: int = 0) -> tuple[Plane, ...]:
    rng = np.random.default_rng(seed)
    planes = pixel.num_colour_planes + pixel.alpha
    return tuple(rng.integers(0, 1 << pixel.bits, pixel.plane_shape(n, WIDTH, HEIGHT)).astype(pixel.dtype) for n in range(planes))


def _flat(pixel: PixelFormat, colour: ColourModel, rgb: tuple[int, int, int]) -> tuple[Plane, ...]:
    samples = np.rint(colour.matrix @ (np.array(rgb) / 255) + colour.offset)
    return tuple(np.full(pixel.plane_shape(n, WIDTH, HEIGHT), samples[n], pixel.dtype) for n in range(pixel.num_colour_planes))


def _disc(size: int = 160, radius: float = 60, soft: float = 10) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[:size, :size]
    centre = (size - 1) / 2
    return np.clip((radius - np.hypot(columns - centre, rows - centre)) / soft, 0, 1).astype(np.float32)


def _affine(scale: float, degrees: float, x: float, y: float) -> npt.NDArray[np.float64]:
    """Box pixels -> frame, with the box's centre at (x, y)."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ [79.5, 79.5]])


def _assert_only_the_mask_changed(
    planes: tuple[np.ndarray, ...], result: Composite, masks: list[npt.NDArray[np.bool_]], pixel: PixelFormat
) -> None:
    for number, (before, after) in enumerate(zip(planes, result.planes, strict=True)):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        if number >= pixel.num_colour_planes:
            np.testing.assert_array_equal(after, before)
            continue
        np.testing.assert_array_equal(after[~masks[number]], before[~masks[number]])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", [(0.9, 12.0, 120.3, 90.8), (0.4, -30.0, 10.0, 170.0), (1.7, 5.0, 230.0, 5.0)])
def test_samples_outside_the_mask_are_bit_equal(name: str, place: tuple[float, float, float, float]) -> None:
    pixel = pixel_format(name)
    planes = _noise(pixel)
    kept = tuple(plane.copy() for plane in planes)
    box = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    result = composite(planes, pixel, colour_model(pixel, TAGS[0], WIDTH, HEIGHT), _affine(*place), box, _disc())
    assert all(np.array_equal(a, b) for a, b in zip(planes, kept, strict=True)), "the footage itself must not change"
    masks = plane_masks(pixel, (HEIGHT, WIDTH), _affine(*place), _disc())
    _assert_only_the_mask_changed(planes, result, masks, pixel)
    assert result.area_px == int(masks[0].sum()) > 0
    for number, mask in enumerate(masks):
        assert (result.planes[number] != planes[number])[mask].mean() > 0.7


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tags", TAGS)
def test_box_colour_in_footage_samples(name: str, tags: ColourTags) -> None:
    """The colour of the box arrives in the footage's samples."""
    pixel = pixel_format(name)
    colour = colour_model(pixel, tags, WIDTH, HEIGHT)
    rgb = (201, 120, 64)
    box = np.full((160, 160, 3), rgb, np.uint8)
    result = composite(_noise(pixel), pixel, colour, _affine(0.8, 0, 119, 90), box, np.ones((160, 160), np.float32))
    for after, target in zip(result.planes, _flat(pixel, colour, rgb), strict=False):
        rows, columns = after.shape
        middle = after[int(rows * 0.4) : int(rows * 0.6), int(columns * 0.4) : int(columns * 0.6)]
        assert (middle == target[0, 0]).all()


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p"])
def test_own_colour_changes_nothing(name: str) -> None:
    """A box of the footage's own colour changes nothing."""
    pixel = pixel_format(name)
    colour = colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    rgb = (180, 130, 110)
    planes = _flat(pixel, colour, rgb)
    result = composite(planes, pixel, colour, _affine(1.1, 20, 100, 90), np.full((160, 160, 3), rgb, np.uint8), _disc())
    assert all(np.array_equal(a, b) for a, b in zip(planes, result.planes, strict=True))


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("name", ["yuv420p10le", "yuv422p10le"])
def test_hdr_footage_keeps_its_own_picture(tmp_path: Path, name: str, transfer: int) -> None:
    """A box of HDR footage, as networks see the footage, gives the footage's samples back within the step of eight bits."""
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format=name, colour=(9, 1, 9, transfer), pts=(0,))))
    flat = _flat(info.video.pixel, info.video.colour_model, (96, 82, 70))
    with VideoReader(info) as reader:
        first = next(iter(reader))
    planes = tuple(
        np.ascontiguousarray(plane[: own.shape[0], : own.shape[1]]) for plane, own in zip(flat, first.planes, strict=True)
    )
    shown = to_rgb(replace(first, planes=planes, picture=_picture(planes, info)))
    assert shown.reshape(-1, 3).std(axis=0).max() < 1.0
    place = np.array([[1.0, 0.0, 20.0], [0.0, 1.0, 10.0]])
    box = shown[10:50, 20:80]
    result = composite(planes, info.video.pixel, info.video.colour_model, place, box, np.ones(box.shape[:2], np.float32))
    assert result.area_px > 0
    for before, after in zip(planes, result.planes, strict=True):
        assert np.abs(before.astype(int) - after).max() <= 6


def _picture(planes: tuple[Plane, ...], info: MediaInfo) -> av.VideoFrame:
    picture = blank_picture(info.video)
    for view, plane in zip(plane_views(picture, info.video, writable=True), planes, strict=True):
        view[...] = plane
    return picture


@pytest.mark.parametrize("color_range", [0, 1, 2])
def test_grey_frame_is_unchanged(tmp_path: Path, color_range: int) -> None:
    """A box of a grey frame gives the frame's own samples back."""
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format="gray", colour=(2, color_range, 2, 2), pts=(0,))))
    assert info.video.colour.color_range == color_range
    with VideoReader(info) as reader:
        frame = next(iter(reader))
        box = to_rgb(frame)[10:50, 20:80]
        place = np.array([[1.0, 0.0, 20.0], [0.0, 1.0, 10.0]])
        mask = np.ones(box.shape[:2], np.float32)
        result = composite(frame.planes, info.video.pixel, info.video.colour_model, place, box, mask)
        np.testing.assert_array_equal(result.planes[0], frame.planes[0])


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv411p", "yuv440p"])
def test_chroma_lies_where_luma_does(name: str) -> None:
    """A coloured bar: its centre of mass in every plane, in luma samples, is where the affine map puts it."""
    pixel = pixel_format(name)
    colour = colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    grey, red = (128, 128, 128), (160, 110, 110)
    box = np.full((160, 160, 3), grey, np.uint8)
    rows, columns = np.mgrid[:160, :160]
    blob = np.exp(-((columns - 90) ** 2 + (rows - 70) ** 2) / (2 * 12.0**2))[..., None]
    picture = (box * (1 - blob) + np.array(red) * blob).astype(np.float32)
    affine = _affine(1.0, 0, 120.0, 90.0)
    result = composite(_flat(pixel, colour, grey), pixel, colour, affine, picture, np.ones((160, 160), np.float32))
    expected = affine @ [90, 70, 1]
    step_x, step_y = pixel.chroma_step
    for number in (0, 1, 2):
        plane = result.planes[number].astype(float)
        weight = np.abs(plane - np.median(plane))
        if number:
            ys = np.arange(plane.shape[0]) * step_y + (step_y - 1) / 2
            xs = np.arange(plane.shape[1]) * float(step_x)
        else:
            ys, xs = np.arange(plane.shape[0]) * 1.0, np.arange(plane.shape[1]) * 1.0
        centre = ((weight * xs).sum() / weight.sum(), (weight.T * ys).sum() / weight.sum())
        np.testing.assert_allclose(centre, expected, atol=0.35)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_turned_footage_gets_the_same_picture_turned(quarter: int) -> None:
    pixel = pixel_format("yuv444p")
    colour = colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    upright = _noise(pixel)
    coded = tuple(np.ascontiguousarray(np.rot90(plane, -quarter)) for plane in upright)
    cos, sin = [(1, 0), (0, -1), (-1, 0), (0, 1)][quarter]  # as containers store it: clockwise for -90, y down
    matrix = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    view = orientation(coded[0].shape[1], coded[0].shape[0], None, matrix)
    assert view.quarter_turns == quarter
    box = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.float32), (0, 0), 3)
    affine = _affine(0.8, 10, 110, 85)
    turned = view.coded_from_upright
    coded_affine = np.column_stack([turned[:, :2] @ affine[:, :2], turned[:, :2] @ affine[:, 2] + turned[:, 2]])
    plain = composite(upright, pixel, colour, affine, box, _disc())
    other = composite(coded, pixel, colour, coded_affine, box, _disc())
    for a, b in zip(plain.planes, other.planes, strict=True):
        difference = np.abs(a.astype(int) - np.rot90(b, quarter).astype(int))
        assert difference.max() <= 6  # OpenCV rounds positions to 1/32 of a pixel
        assert difference.mean() < 0.1


def test_smaller_face_is_prefiltered() -> None:
    """A smaller face is smoothed before it is sampled."""
    pixel = pixel_format("gray")
    colour = colour_model(pixel, ColourTags(1, 2), WIDTH, HEIGHT)
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:, ::2] = 255
    planes = (np.full((HEIGHT, WIDTH), 128, np.uint8),)
    result = composite(planes, pixel, colour, _affine(0.3, 0, 120, 90), stripes, _disc())
    inside = result.planes[0][80:100, 110:130].astype(float)
    assert inside.std() < 16, "stripes finer than a sample must come out grey"


@pytest.mark.parametrize("place", [(1.0, 0.0, -200.0, 90.0), (1.0, 0.0, 120.0, 1000.0)])
def test_a_box_outside_the_frame_changes_nothing(place: tuple[float, float, float, float]) -> None:
    pixel = pixel_format("yuv420p")
    planes = _noise(pixel)
    result = composite(planes, pixel, colour_model(pixel, TAGS[0], WIDTH, HEIGHT), _affine(*place), BLACK, _disc())
    assert all(np.array_equal(a, b) for a, b in zip(planes, result.planes, strict=True))
    assert result.area_px == 0


def test_an_empty_mask_changes_nothing() -> None:
    pixel = pixel_format("yuv420p")
    planes, colour = _noise(pixel), colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    result = composite(planes, pixel, colour, _affine(1, 0, 120, 90), BLACK, np.zeros((160, 160), np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(planes, result.planes, strict=True))


def test_non_finite_or_mismatched_refused() -> None:
    """Values that are not finite and shapes that do not match are refused."""
    pixel = pixel_format("yuv420p")
    planes, colour = _noise(pixel), colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    mask = _disc()
    mask[80, 80] = np.nan
    with pytest.raises(ContractBrokenError, match="not finite"):
        composite(planes, pixel, colour, _affine(1, 0, 120, 90), BLACK, mask)
    with pytest.raises(ContractBrokenError, match="do not match"):
        composite(planes, pixel, colour, _affine(1, 0, 120, 90), BLACK[:80], _disc())


def _moved_down(by: float) -> npt.NDArray[np.float32]:
    """A shift that draws a disc of the footage up by some box pixels."""
    return np.stack([np.zeros((160, 160)), by * _disc(radius=50, soft=20)], axis=-1).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", [(0.9, 12.0, 120.3, 90.8), (1.7, 5.0, 230.0, 5.0)])
def test_moved_footage_changes_only_where_it_is_moved(name: str, place: tuple[float, float, float, float]) -> None:
    pixel = pixel_format(name)
    planes, colour, affine = _noise(pixel), colour_model(pixel, TAGS[0], WIDTH, HEIGHT), _affine(*place)
    nothing = np.zeros((160, 160), np.float32)
    result = composite(planes, pixel, colour, affine, BLACK, nothing, shift=_moved_down(6))
    masks = plane_masks(pixel, (HEIGHT, WIDTH), affine, nothing, _moved_down(6))
    _assert_only_the_mask_changed(planes, result, masks, pixel)
    assert result.area_px == int(masks[0].sum()) > 0
    for number, mask in enumerate(masks):
        assert (result.planes[number] != planes[number])[mask].mean() > 0.7


def test_composite_in_place_equals_new_planes() -> None:
    """A given copy gets the samples that new planes would get. The original planes do not change."""
    pixel = pixel_format("yuv420p")
    planes, copies = _noise(pixel), tuple(plane.copy() for plane in _noise(pixel))
    arguments = (pixel, colour_model(pixel, TAGS[0], WIDTH, HEIGHT), _affine(0.8, 10, 119, 90), BLACK, _disc())
    expected = composite(planes, *arguments, shift=_moved_down(6))
    found = composite(planes, *arguments, shift=_moved_down(6), into=copies)
    assert found.planes is copies
    for plane, wanted, footage, old in zip(found.planes, expected.planes, planes, _noise(pixel), strict=True):
        np.testing.assert_array_equal(plane, wanted)
        np.testing.assert_array_equal(footage, old)


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p", "gbrp"])
def test_every_plane_moves_by_the_shift(name: str) -> None:
    """The footage is a slope, so a move by some box pixels adds the same amount everywhere."""
    pixel, by, scale = pixel_format(name), 5.0, 0.9
    rise = (1 << pixel.bits) // 256
    planes = tuple(
        (64 * rise + rise * np.arange(rows)[:, None] * (HEIGHT / 2 / rows) + np.zeros(columns)).astype(pixel.dtype)
        for rows, columns in (pixel.plane_shape(number, WIDTH, HEIGHT) for number in range(pixel.num_colour_planes))
    )
    colour, nothing = colour_model(pixel, TAGS[0], WIDTH, HEIGHT), np.zeros((160, 160), np.float32)
    result = composite(planes, pixel, colour, _affine(scale, 0, 119, 90), BLACK, nothing, shift=_moved_down(by))
    for before, after in zip(planes, result.planes, strict=False):
        rows, columns = before.shape
        middle = (slice(int(rows * 0.45), int(rows * 0.55)), slice(int(columns * 0.45), int(columns * 0.55)))
        difference = after[middle].astype(float) - before[middle]
        assert difference.mean() == pytest.approx(by * scale * rise / 2, abs=0.6)


def test_zero_shift_same_planes() -> None:
    """Footage that rests gives the same planes as no shift."""
    pixel = pixel_format("yuv420p")
    planes, colour = _noise(pixel), colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    box = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    plain = composite(planes, pixel, colour, _affine(0.9, 12, 120, 90), box, _disc())
    rested = composite(planes, pixel, colour, _affine(0.9, 12, 120, 90), box, _disc(), shift=_moved_down(0))
    assert all(np.array_equal(a, b) for a, b in zip(plain.planes, rested.planes, strict=True))
    assert plain.area_px == rested.area_px


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuvj444p", "gbrp", "gray"])
def test_light_changes_the_luma_under_the_mask_alone(name: str) -> None:
    pixel = pixel_format(name)
    colour = colour_model(pixel, TAGS[0], WIDTH, HEIGHT)
    box = np.full((160, 160, 3), 128, np.uint8)
    asked = (_noise(pixel), pixel, colour, _affine(1.1, 20, 100, 90), box, _disc())
    plain, lit = composite(*asked), composite(*asked, light=np.full((160, 160), 10.0, np.float32))
    assert lit.area_px == plain.area_px
    masks = plane_masks(pixel, (HEIGHT, WIDTH), asked[3], asked[5])
    for number in range(pixel.num_colour_planes):
        with_it, without = lit.planes[number], plain.planes[number]
        difference = with_it.astype(np.int64) - without
        assert not difference[~masks[number]].any()
        if number and pixel.kind == "yuv":
            assert not difference.any()
        else:
            full = 10.0 * colour.matrix[number].sum() / 255.0
            assert abs(difference.max() - full) <= 1.0
            assert difference.min() >= 0
