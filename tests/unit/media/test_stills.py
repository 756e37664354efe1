from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from gateway.media.inspection import inspect_video
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.stills import is_still, open_footage, still_video_info
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.unit.media.made_footage import Clip, make_clip
from tests.unit.media.made_pictures import box, make_heic, with_chunk, with_property

TURN, MIRROR = (lambda turns: box(b"irot", bytes([turns]))), (lambda axis: box(b"imir", bytes([axis])))
CROP, LEFT_OF_IT, BELOW_IT = (
    box(b"clap", struct.pack(">IIIIiIiI", 200, 2, 60, 1, *middle)) for middle in ((30, 3, -20, 1), (-99, 1, 0, 1), (0, 1, 500, 1))
)
"""100 x 60 pixels around a middle, from the middle of the picture."""
DISPLAY_P3 = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.78407)}


def _picture(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A smooth coloured picture, written as a file; RGB."""
    rgb = _drawn(height, width)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return rgb


@pytest.mark.parametrize("name", ["face.png", "face.jpg", "face.webp", "face.bmp"])
def test_picture_becomes_one_frame(tmp_path: Path, name: str) -> None:
    """A picture becomes a video of one frame that shows it."""
    rgb = _picture(tmp_path / name, 240, 320)
    assert is_still(probe(tmp_path / name))
    video = open_footage(probe(tmp_path / name), tmp_path, threads=1)
    with VideoReader(video) as reader:
        (frame,) = reader
    assert (video.video.num_frames, video.video.pixel.name, video.video.average_rate) == (1, "yuv420p", 25)
    assert np.abs(to_rgb(frame).astype(int) - rgb).mean() < 2.0
    with VideoReader(inspect_video(tmp_path / name)) as reader:
        (alone,) = reader
    assert np.abs(to_rgb(alone).astype(int) - rgb).mean() < 2.0
    assert not any(plane.flags.writeable for plane in alone.planes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    rgb = _picture(tmp_path / "face.jpg", 240, 320)
    _write_orientation(tmp_path / "face.jpg", orientation)
    mirrored, turned = orientation in (2, 4, 5, 7), {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    expected = np.rot90(rgb[:, ::-1] if mirrored else rgb, turned)
    video = open_footage(probe(tmp_path / "face.jpg"), tmp_path, threads=1)
    with VideoReader(video) as reader:
        (frame,) = reader
    assert np.abs(to_rgb(frame).astype(int) - expected).mean() < 3.0


def _write_orientation(path: Path, orientation: int) -> None:
    """Put an EXIF block with this orientation behind a JPEG's first marker."""
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 0x0112, 3, 1, orientation) + bytes(4)
    block = b"Exif\x00\x00" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])


@pytest.mark.parametrize("name", ["face.png", "face.webp"])
def test_a_picture_with_transparent_pixels_needs_a_background(tmp_path: Path, name: str) -> None:
    rgba = np.dstack([np.full((240, 320, 3), 90, np.uint8), np.full((240, 320), 255, np.uint8)])
    assert cv2.imwrite(str(tmp_path / name), rgba)
    assert open_footage(probe(tmp_path / name), tmp_path, threads=1).video.num_frames == 1, "opaque pixels alone"
    rgba[:24, :, 3] = 0
    assert cv2.imwrite(str(tmp_path / name), rgba)
    with pytest.raises(InvalidRequestError, match=rf"{name}: 10\.0% of the pixels are transparent.*color=white:size=320x240 -i IN"):
        open_footage(probe(tmp_path / name), tmp_path, threads=1)


def _shown(path: Path) -> npt.NDArray[np.uint8]:
    """A picture file as a video shows it, RGB."""
    with VideoReader(inspect_video(path)) as reader:
        (frame,) = reader
    return to_rgb(frame)


def _drawn(height: int = 200, width: int = 200) -> npt.NDArray[np.uint8]:
    rows, columns = np.linspace(20, 235, height)[:, None], np.linspace(20, 235, width)[None]
    return np.stack([rows + 0 * columns, columns + 0 * rows, (rows + columns) / 2], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("properties", "turned"),
    [
        ((), lambda rgb: rgb),
        ((TURN(1),), np.rot90),
        ((TURN(3),), lambda rgb: np.rot90(rgb, 3)),
        ((MIRROR(1),), lambda rgb: rgb[:, ::-1]),
        ((MIRROR(0),), lambda rgb: rgb[::-1]),
        ((TURN(1), MIRROR(1)), lambda rgb: np.rot90(rgb)[:, ::-1]),
        ((CROP,), lambda rgb: rgb[25:85, 45:145]),
        ((LEFT_OF_IT,), lambda rgb: rgb[45:105, :100]),
    ],
)
def test_tiles_are_one_picture(tmp_path: Path, properties: tuple[bytes, ...], turned: Callable[[Any], Any]) -> None:
    """A photograph of a phone: tiles of HEVC side by side, cropped, turned and mirrored as the file says."""
    rgb = _drawn(150, 170)
    shown = _shown(make_heic(tmp_path / "photo.heic", rgb, 64, *properties))
    expected = turned(rgb)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3.0


def test_damaged_heic_refused(tmp_path: Path) -> None:
    data = make_heic(tmp_path / "photo.heic", _drawn(150, 170), 64).read_bytes()
    (tmp_path / "cut.heic").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(MediaUnsupportedError, match=r"cut\.heic: tile \d of 9 "):
        inspect_video(tmp_path / "cut.heic")
    place = data.index(b"ipma") + 8
    (tmp_path / "odd.heic").write_bytes(data[:place] + b"\xff" * 30 + data[place + 30 :])
    make_heic(tmp_path / "outside.heic", _drawn(150, 170), 64, BELOW_IT)
    for name in ("odd.heic", "outside.heic"):
        with pytest.raises(MediaUnsupportedError, match=r"description .* is damaged"):
            inspect_video(tmp_path / name)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_avif_stands_upright(tmp_path: Path, orientation: int) -> None:
    """AVIF says its rotation in properties of the picture (irot, imir), which Pillow writes for an EXIF orientation."""
    rgb, exif = _drawn(128, 96), Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(rgb).save(tmp_path / "photo.avif", quality=95, exif=exif)
    mirrored, turns = orientation == 2, {1: 0, 2: 0, 3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(rgb[:, ::-1] if mirrored else rgb, turns)
    shown = _shown(tmp_path / "photo.avif")
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3.0


def test_avif_shows_crop_and_primaries(tmp_path: Path) -> None:
    """AVIF is shown as cropped by its clean aperture, and Display P3 has the look of sRGB."""
    rgb = _drawn(200, 200)
    Image.fromarray(rgb).save(tmp_path / "photo.avif", quality=95)
    plain = (tmp_path / "photo.avif").read_bytes()
    (tmp_path / "cropped.avif").write_bytes(with_property(plain, CROP))
    expected = rgb[50:110, 60:160]
    shown = _shown(tmp_path / "cropped.avif")
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 3.0
    place = plain.index(b"nclx") + 4
    (tmp_path / "wide.avif").write_bytes(plain[:place] + b"\0\x0c" + plain[place + 2 :])
    wide = _shown(tmp_path / "wide.avif").astype(int)
    assert wide[180, 20].tolist() == pytest.approx([244, 0, 128], abs=12), "more red than sRGB (235, 40, 137)"
    assert np.abs(np.diagonal(wide - rgb)).mean() < 3.0, "greys stay"


@pytest.mark.parametrize("suffix", ["avif", "tiff", "png"])
def test_transparency_of_pictures_read(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([_drawn(), np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None], 200, axis=0)])
    Image.fromarray(rgba).save(tmp_path / f"cut_out.{suffix}", **({"quality": 95} if suffix == "avif" else {}))
    with VideoReader(inspect_video(tmp_path / f"cut_out.{suffix}")) as reader:
        (frame,) = reader
    assert np.abs(frame.planes[-1].astype(int) - rgba[..., 3]).max() < 12


def test_animations_of_pictures(tmp_path: Path) -> None:
    """An animated AVIF has all of its frames. An animated WebP, which FFmpeg does not read, is refused by name."""
    first, *others = (Image.fromarray(np.roll(_drawn(), shift, axis=1)) for shift in (0, 40, 80))
    for name in ("moving.avif", "moving.webp", "moving.png"):
        first.save(tmp_path / name, save_all=True, append_images=others, duration=40)
    assert inspect_video(tmp_path / "moving.avif").video.num_frames == 3
    assert inspect_video(tmp_path / "moving.png").video.num_frames == 3
    with pytest.raises(MediaUnsupportedError, match=r"moving\.webp is an animation in WebP"):
        inspect_video(tmp_path / "moving.webp")


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_tiff_stands_upright(tmp_path: Path, orientation: int) -> None:
    rgb = _drawn(120, 90)
    Image.fromarray(rgb).save(tmp_path / "scan.tiff", tiffinfo={0x112: orientation})
    mirrored, turns = orientation == 2, {1: 0, 2: 0, 3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(rgb[:, ::-1] if mirrored else rgb, turns)
    assert inspect_video(tmp_path / "scan.tiff").video.orientation.upright_size == expected.shape[1::-1]
    np.testing.assert_array_equal(_shown(tmp_path / "scan.tiff"), expected)


def test_grey_of_twelve_bits_is_bright(tmp_path: Path) -> None:
    """Scanners write grey of 10 to 14 bits into the lower bits of a sample."""
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 16, (64, 1))
    tags = {256: 256, 257: 64, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 256 * 64 * 3 // 2}
    packed = np.empty((64, 128, 3), np.uint8)
    even, odd = ramp[:, ::2], ramp[:, 1::2]
    packed[..., 0], packed[..., 1], packed[..., 2] = even >> 4, (even & 15) << 4 | odd >> 8, odd & 255
    pixels = packed.tobytes()
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    (tmp_path / "scan.tif").write_bytes(head + pixels + struct.pack("<H", len(tags)) + entries + bytes(4))
    with Image.open(tmp_path / "scan.tif") as image:
        assert image.mode == "I;16"
    np.testing.assert_allclose(_shown(tmp_path / "scan.tif")[..., 0], np.tile(np.arange(256), (64, 1)), atol=1)


def test_deep_tiff_read_or_refused(tmp_path: Path) -> None:
    """Grey of 16 bits whose white is 0 is not inverted, and levels of 32 bits are refused."""
    grey = _drawn()[..., 0]
    Image.fromarray((65535 - grey.astype(np.int64) * 257).astype(np.uint16)).save(tmp_path / "scan.tiff")
    data = (tmp_path / "scan.tiff").read_bytes()
    entry = struct.pack("<HHI", 262, 3, 1)
    assert data.count(entry) == 1
    (tmp_path / "scan.tiff").write_bytes(data.replace(entry + b"\1", entry + b"\0"))
    np.testing.assert_array_equal(_shown(tmp_path / "scan.tiff"), np.dstack([grey] * 3))
    Image.fromarray(grey.astype(np.int32) << 22).save(tmp_path / "deep.tiff")
    with pytest.raises(MediaUnsupportedError, match=r"deep\.tiff: .* levels of 32 bits"):
        inspect_video(tmp_path / "deep.tiff")


def test_colours_of_png_read(tmp_path: Path) -> None:
    """Chunks of PNG that state Display P3 (cICP, cHRM), linear light (gAMA) and PQ (cICP) give the look of sRGB."""
    rgb = _drawn()
    light = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    Image.fromarray(np.rint(light * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    linear = with_chunk((tmp_path / "plain.png").read_bytes(), b"gAMA", struct.pack(">I", 100_000))
    (tmp_path / "linear.png").write_bytes(linear)
    assert np.abs(_shown(tmp_path / "linear.png").astype(int) - rgb).mean() < 2.0
    Image.fromarray(rgb).save(tmp_path / "plain.png")
    plain = (tmp_path / "plain.png").read_bytes()
    p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    usual = with_chunk(plain, b"gAMA", struct.pack(">I", 45455))
    (tmp_path / "usual.png").write_bytes(usual)
    (tmp_path / "named.png").write_bytes(with_chunk(plain, b"cICP", bytes([12, 13, 0, 1])))
    (tmp_path / "stated.png").write_bytes(with_chunk(usual, b"cHRM", p3))
    (tmp_path / "hdr.png").write_bytes(with_chunk(plain, b"cICP", bytes([9, 16, 0, 1])))
    np.testing.assert_array_equal(_shown(tmp_path / "usual.png"), rgb)
    named, stated, hdr = (_shown(tmp_path / f"{name}.png").astype(int) for name in ("named", "stated", "hdr"))
    assert named[199, 0, 1] < rgb[199, 0, 1] - 15, "more red than sRGB"
    assert np.abs(named - stated).mean() < 3.0
    assert hdr[199, 199].min() > 250, "light above 1000 cd/m2 is white"


@pytest.mark.parametrize(
    ("gamma", "primaries"),
    [
        (45455, (31270, 32900, 68000, 0, 26500, 69000, 15000, 6000)),
        (45455, (31270, 32900, 64000, 33000, 64000, 33000, 15000, 6000)),
        (1, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    ],
    ids=["y of 0", "two primaries alike", "gamma near 0"],
)
def test_impossible_colours_of_png_ignored(tmp_path: Path, gamma: int, primaries: tuple[int, ...]) -> None:
    """Values of cHRM and gAMA that no picture can have are left out, and the picture is read as sRGB."""
    Image.fromarray(_drawn()).save(tmp_path / "plain.png")
    stated = with_chunk((tmp_path / "plain.png").read_bytes(), b"gAMA", struct.pack(">I", gamma))
    (tmp_path / "stated.png").write_bytes(with_chunk(stated, b"cHRM", struct.pack(">8I", *primaries)))
    np.testing.assert_array_equal(_shown(tmp_path / "stated.png"), _drawn())


def test_first_picture_of_jpeg_counts(tmp_path: Path) -> None:
    """A JPEG with a smaller picture behind it (gain maps of HDR photographs) or with other bytes is the first picture, also where
    an index (MPF) names the second. Pictures of one size without an index are a video.
    """
    first, second = Image.fromarray(_drawn(200, 200)), Image.fromarray(_drawn(100, 100))
    for image, name in ((first, "first.jpg"), (second, "second.jpg")):
        image.save(tmp_path / name, quality=95)
    data = (tmp_path / "first.jpg").read_bytes()
    (tmp_path / "two.jpg").write_bytes(data + (tmp_path / "second.jpg").read_bytes())
    (tmp_path / "rest.jpg").write_bytes(data + data[:3] + bytes(99))
    first.save(tmp_path / "listed.jpg", format="MPO", save_all=True, append_images=[first], quality=95)
    for name in ("two.jpg", "rest.jpg", "listed.jpg"):
        assert is_still(probe(tmp_path / name))
        assert np.abs(_shown(tmp_path / name).astype(int) - _drawn(200, 200)).mean() < 3.0
    (tmp_path / "video.mjpeg").write_bytes(data * 3)
    assert inspect_video(tmp_path / "video.mjpeg").video.num_frames == 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_picture_cut_short_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(MediaUnsupportedError, match=rf"cut\.{suffix}: .* damaged"):
        inspect_video(tmp_path / f"cut.{suffix}")


def test_deep_and_grey_pictures_read(tmp_path: Path) -> None:
    """Pictures of 16 bits, grey with alpha, 1 bit, CMYK and palettes have the colours of their 8-bit equals."""
    rgb = _drawn()
    grey = rgb[..., 0]
    assert cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    assert cv2.imwrite(str(tmp_path / "deep_grey.png"), grey.astype(np.uint16) * 257)
    assert cv2.imwrite(str(tmp_path / "deep.tiff"), rgb[..., ::-1].astype(np.uint16) * 257)
    Image.merge("LA", [Image.fromarray(grey), Image.new("L", (200, 200), 255)]).save(tmp_path / "alpha_grey.png")
    Image.fromarray(grey > 128).save(tmp_path / "bits.png")
    in_grey, in_bits = np.dstack([grey] * 3), np.dstack([np.where(grey > 128, 255, 0)] * 3)
    shown = {"deep.png": rgb, "deep.tiff": rgb, "deep_grey.png": in_grey, "alpha_grey.png": in_grey, "bits.png": in_bits}
    for name, expected in shown.items():
        video = open_footage(inspect_video(tmp_path / name), tmp_path, threads=1)
        np.testing.assert_array_equal(_shown(tmp_path / name), expected, err_msg=name)
        assert video.video.num_frames == 1


def test_floating_point_levels_refused(tmp_path: Path) -> None:
    Image.fromarray(_drawn()[..., 0].astype(np.float32) / 255).save(tmp_path / "levels.tiff")
    with pytest.raises(MediaUnsupportedError, match=r"levels\.tiff: .* floating-point .* 8 or 16 bits .* EXR"):
        inspect_video(tmp_path / "levels.tiff")


def test_profile_gives_the_same_look(tmp_path: Path) -> None:
    """A picture with an ICC profile looks as in sRGB. A profile of sRGB changes no level."""
    rgb = _drawn()
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "plain.png", icc_profile=swapped)
    np.testing.assert_array_equal(_shown(tmp_path / "plain.png"), rgb)
    wide = _with_primaries(swapped, DISPLAY_P3)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide))
    inside = ImageCms.profileToProfile(Image.fromarray(rgb), ImageCms.createProfile("sRGB"), profile)
    assert inside is not None
    assert np.abs(np.asarray(inside).astype(int) - rgb).max() > 5
    inside.save(tmp_path / "wide.png", icc_profile=wide)
    assert np.abs(_shown(tmp_path / "wide.png").astype(int) - rgb).mean() < 1.0
    heic = make_heic(tmp_path / "wide.heic", np.asarray(inside), 64, box(b"colr", b"prof" + wide))
    assert np.abs(_shown(heic).astype(int) - rgb).mean() < 3.0


def _write_planes(path: Path, rgb: npt.NDArray[np.uint8], profile: bytes, orientation: int) -> None:
    """Write a TIFF picture of 16 bits whose colours lie one after the other."""
    height, width, _ = rgb.shape
    size, begin = 2 * height * width, 8
    end = begin + 3 * size
    levels = np.moveaxis(rgb, 2, 0).astype("<u2") * np.uint16(257)
    tables = struct.pack("<3H", 16, 16, 16) + struct.pack("<3I", *range(begin, end, size)) + struct.pack("<3I", *[size] * 3)
    short, long = 3, 4
    entries = [
        (256, short, 1, width), (257, short, 1, height), (258, short, 3, end), (259, short, 1, 1), (262, short, 1, 2),
        (273, long, 3, end + 6), (274, short, 1, orientation), (277, short, 1, 3), (278, short, 1, height),
        (279, long, 3, end + 18), (284, short, 1, 2), (34675, 7, len(profile), end + len(tables)),
    ]  # fmt: skip
    listed = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, end + len(tables) + len(profile))
    path.write_bytes(head + levels.tobytes() + tables + profile + listed)


@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_planes_of_tiff_have_profile(tmp_path: Path, orientation: int) -> None:
    """A TIFF picture of 16 bits in planes looks as its 8-bit equal: upright, and in the colours of its profile."""
    rgb = _drawn(60, 80)
    wide = _with_primaries(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), DISPLAY_P3)
    wide += bytes(len(wide) % 2)
    _write_planes(tmp_path / "planes.tif", rgb, wide, orientation)
    Image.fromarray(rgb).save(tmp_path / "same.tif", icc_profile=wide, tiffinfo={274: orientation})
    np.testing.assert_array_equal(_shown(tmp_path / "planes.tif"), _shown(tmp_path / "same.tif"))
    assert np.abs(_shown(tmp_path / "planes.tif").astype(int) - (np.rot90(rgb, 3) if orientation == 6 else rgb)).max() > 4


def _with_primaries(profile: bytes, primaries: dict[bytes, tuple[float, float, float]]) -> bytes:
    """An ICC profile of a display with other primaries."""
    changed = bytearray(profile)
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        if name in primaries:
            struct.pack_into(">3i", changed, offset + 8, *(round(value * 65536) for value in primaries[name]))
    return bytes(changed)


def test_large_pictures_are_reduced_and_sides_are_even(tmp_path: Path) -> None:
    _picture(tmp_path / "large.png", 2001, 3001)
    assert still_video_info(probe(tmp_path / "large.png")).video.orientation.upright_size == (1920, 1280)
    _picture(tmp_path / "odd.png", 301, 201)
    assert open_footage(probe(tmp_path / "odd.png"), tmp_path, threads=1).video.orientation.upright_size == (200, 300)


def test_a_picture_that_is_too_small_is_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "tiny.png", 40, 200)
    with pytest.raises(InvalidRequestError, match="200 x 40 is too small"):
        open_footage(probe(tmp_path / "tiny.png"), tmp_path, threads=1)


def test_videos_are_taken_as_they_are(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", Clip())
    assert open_footage(probe(path), tmp_path, threads=1).path == path
    assert not is_still(probe(path))
