"""Image sequences of real footage: the frames of a clip as OpenEXR, DPX, TIFF or PNG files with headers as cameras write them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from gateway.media.sequences import openimageio

oiio = openimageio()
FIRST = 1001
"""Number of the first frame."""


def pictures(clip: Path, count: int, width: int | None = None) -> list[npt.NDArray[np.float64]]:
    """The first frames of a clip, [rows, columns, 3] in 0 to 1, scaled to a width."""
    with av.open(str(clip)) as video:
        some = [frame for _, frame in zip(range(count), video.decode(video=0), strict=False)]
        sizes = {"width": width, "height": some[0].height * width // some[0].width} if width else {}
        frames = [frame.reformat(format="rgb24", **sizes).to_ndarray() / 255 for frame in some]
    # Grain below one code value of 8 bits, so that the lowest bits of deep files are not all alike.
    grain = np.random.default_rng(5)
    return [np.clip(frame + grain.uniform(-1, 1, frame.shape) / 512, 0, 1) for frame in frames]


def linear(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scene-linear light of a picture, with a highlight beyond the white of a display."""
    light = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    light[:8, :8] = [6.0, 4.0, 2.0]
    return light


def write_sequence(
    clip: Path,
    pattern: Path,
    count: int,
    *,
    bits: int = 0,
    rate: Fraction | None = Fraction(25),
    width: int | None = None,
    **header: Any,
) -> Path:
    """Frames of a clip as files named by a %04d pattern; bits 0: half floats of scene-linear light with alpha, depth and a matte.

    Args:
        header: further attributes; `data_window` = (x, y, width, height) and `display_window` = (width, height) of OpenEXR.
    """
    for index, picture in enumerate(pictures(clip, count, width)):
        write_frame(Path(str(pattern) % (FIRST + index)), picture, index, bits=bits, rate=rate, **header)
    return pattern


def write_frame(
    file: Path, picture: npt.NDArray[np.float64], index: int, *, bits: int, rate: Fraction | None, **header: Any
) -> None:
    """Write one frame."""
    rows, columns = picture.shape[:2]
    if bits:
        codes = np.round(picture * ((1 << bits) - 1)).astype(np.uint32)
        samples: Any = (
            codes.astype(np.uint8) if bits == 8 else ((codes << (16 - bits)) | (codes >> (2 * bits - 16))).astype(np.uint16)
        )
        spec = oiio.ImageSpec(columns, rows, 3, "uint8" if bits == 8 else "uint16")
        spec.attribute("oiio:BitsPerSample", bits)
    else:
        noise = np.random.default_rng(index).random((rows, columns, 3))
        samples = np.concatenate([linear(picture), noise], axis=-1).astype(np.float16)
        spec = oiio.ImageSpec(columns, rows, 6, "half")
        spec.channelnames = ("R", "G", "B", "A", "Z", "matte.red")
    if "data_window" in header:
        left, top, columns, rows = header.pop("data_window")
        samples = np.ascontiguousarray(samples[:rows, :columns])
        spec.x, spec.y, spec.width, spec.height = left, top, columns, rows
        spec.full_width, spec.full_height = header.pop("display_window")
    if file.suffix == ".dpx":
        spec.attribute("dpx:TimeCode", f"10:00:00:{index:02d}")
        spec.attribute("dpx:FramePosition", FIRST + index)
        spec.attribute("dpx:InputDevice", "Camera 7")
        spec.attribute("dpx:Transfer", "ITU-R 709-4")
        if rate is not None:
            spec.attribute("dpx:FrameRate", float(rate))
    elif file.suffix == ".exr":
        spec.attribute("smpte:TimeCode", oiio.TypeTimeCode, (0x10000000 | index, 0))
        spec.attribute("camera", "Camera 7")
        if rate is not None:
            spec.attribute("FramesPerSecond", oiio.TypeRational, (rate.numerator, rate.denominator))
    for name, value in header.items():
        spec.attribute(name.replace("__", ":"), value)
    writer = oiio.ImageOutput.create(str(file))
    assert writer.open(str(file), spec), writer.geterror()
    assert writer.write_image(samples), writer.geterror()
    writer.close()


def stored(file: Path) -> npt.NDArray[Any]:
    """All channels of a file as they are stored, [rows, columns, channels]."""
    asked = oiio.ImageSpec()
    asked.attribute("oiio:UnassociatedAlpha", 1)
    opened = oiio.ImageInput.open(str(file), asked)
    spec = opened.spec()
    samples = opened.read_image(0, 0, 0, spec.nchannels, spec.format)
    opened.close()
    return np.asarray(samples).reshape(spec.height, spec.width, spec.nchannels)


def header_of(file: Path) -> dict[str, Any]:
    """Attributes, channels and windows of a file."""
    opened = oiio.ImageInput.open(str(file))
    spec = opened.spec()
    opened.close()
    return {
        **{item.name: item.value for item in spec.extra_attribs},
        "channels": spec.channelnames,
        "data": (spec.x, spec.y, spec.width, spec.height),
        "display": (spec.full_x, spec.full_y, spec.full_width, spec.full_height),
    }
