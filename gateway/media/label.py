"""Visible label of a video or a live stream, such as "AI dubbed": white letters on a dark ground in a corner, in every frame.

Every frame has the label, not the dubbed frames alone: a viewer may begin anywhere, and a label that comes and goes is missed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.media.choices import LABEL_POSITIONS, MOST_CHARACTERS, LabelPosition
from gateway.media.pixels import ColourTags, PixelFormat, colour_model, pixel_format
from gateway.media.types import Orientation, Plane
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError

_HEIGHT: Final = 0.05
"""Size of the font, of the shorter side of the upright picture: GB 45438-2025 asks for this size."""
_MARGIN: Final = 0.03
"""Distance from the edges, of the shorter side."""
_GROUND: Final = 0.6
"""Opacity of the dark ground."""
_LEFTWARD: Final = frozenset({"R", "AL", "RLE", "RLO", "RLI"})
"""Bidirectional classes of letters from right to left. Pillow lays them out with a library that not every machine has."""
_RGB: Final = pixel_format("gbrp")
"""Format of pictures in RGB, whose planes are G, B and R."""
_WHITE: Final = {16: 0.58, 18: 0.75}
"""Signal of white by transfer characteristics: reference white of PQ and HLG (ITU-R BT.2408). All others: 1."""


@dataclass(frozen=True, slots=True)
class Label:
    """Text that is drawn into a corner of every frame, upright.

    Attributes:
        text: one line, 1 to MOST_CHARACTERS characters.
        position: corner of the upright picture.
    """

    text: str
    position: LabelPosition = "bottom-right"


def label_of(text: str | None, position: str | None) -> Label | None:
    """Return a label; None: no text is given. Blocks: reads the font.

    Args:
        text: None or empty: no label.
        position: one of LABEL_POSITIONS; None or empty: bottom-right.

    Raises:
        InvalidRequestError: the text is too long, has control characters or nothing but accents, has letters that the font lacks or
            letters that are written from right to left, or there is no such corner.
    """
    corner = next((each for each in LABEL_POSITIONS if each == (position or "bottom-right")), None)
    if corner is None:
        raise InvalidRequestError(
            f"no position {str(position)[:80]!r} of a label; there are: {', '.join(LABEL_POSITIONS)}", field="label_position"
        )
    if not text:
        if position:
            raise InvalidRequestError("a position is given without a label", field="label_position")
        return None
    text = unicodedata.normalize("NFC", text.strip())
    if not 0 < len(text) <= MOST_CHARACTERS:
        raise InvalidRequestError(f"a label has 1 to {MOST_CHARACTERS} characters, not {len(text)}", field="label")
    if not text.isprintable():
        raise InvalidRequestError("a label is one line of printable characters", field="label")
    if all(unicodedata.category(letter).startswith(("M", "Z")) for letter in text):
        raise InvalidRequestError("a label has letters, not accents alone", field="label")
    if missing := [letter for letter in text if ord(letter) not in _letters() or unicodedata.bidirectional(letter) in _LEFTWARD]:
        raise InvalidRequestError(f"labels cannot show {missing[0]!r}; give Latin, Greek or Cyrillic letters", field="label")
    return Label(text, corner)


def _font_file() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_file())).get_charmap())


@dataclass(frozen=True, slots=True)
class _Patch:
    """Part of a plane that the label changes: samples become `kept * samples + added`."""

    rows: slice
    columns: slice
    kept: Float32
    added: Float32


class LabelPainter:
    """Draws a label into the planes of frames. The letters are laid out once."""

    def __init__(self, label: Label, pixel: PixelFormat, colour: ColourTags, orientation: Orientation) -> None:
        """Lay the label out.

        Args:
            pixel: format of the planes.
            colour: colour tags of the video that the frames belong to.
            orientation: size of the frames, and how they are shown.
        """
        width, height = orientation.width, orientation.height
        ground, letters = _drawn(label, orientation)
        kept = (1 - ground) * (1 - letters)
        model = colour_model(pixel, colour, width, height)
        white = model.matrix @ np.full(3, _WHITE.get(colour.transfer, 1.0)) + model.offset
        self._top = (1 << pixel.bits) - 1
        self._patches = []
        for plane in range(pixel.num_colour_planes):
            rows, columns = pixel.plane_shape(plane, width, height)
            black, full = float(model.offset[plane]), float(white[plane])
            added = (ground * (1 - letters) * black + letters * full).astype(np.float32)
            here, there = (_scaled(each, columns, rows) for each in (kept, added))
            changed_rows, changed_columns = np.nonzero(here < 1)
            box = slice(changed_rows.min(), changed_rows.max() + 1), slice(changed_columns.min(), changed_columns.max() + 1)
            self._patches.append(_Patch(*box, here[box].copy(), there[box].copy()))

    @classmethod
    def of_pictures(cls, label: Label, colour: ColourTags, width: int, height: int) -> LabelPainter:
        """Return the painter of upright pictures in RGB, uint8 [height, width, 3] (`picture`).

        Args:
            colour: colour tags of the video that the pictures come from.
        """
        return cls(label, _RGB, colour, Orientation(width, height))

    def __call__(self, planes: Sequence[Plane]) -> list[Plane]:
        """Return the planes of a frame with the label, in copies. A plane of alpha stays as it is."""
        count = len(self._patches)
        drawn = [plane.copy() for plane in planes[:count]]
        self._draw(drawn)
        return [*drawn, *planes[count:]]

    def picture(self, picture: UInt8) -> UInt8:
        """Return a copy of a picture with the label.

        Args:
            picture: uint8 [height, width, 3], RGB.
        """
        drawn = picture.copy()
        self._draw([drawn[..., channel] for channel in (1, 2, 0)])
        return drawn

    def _draw(self, planes: Sequence[Plane]) -> None:
        for plane, patch in zip(planes, self._patches, strict=True):
            samples = plane[patch.rows, patch.columns] * patch.kept + patch.added
            plane[patch.rows, patch.columns] = np.clip(np.rint(samples), 0, self._top).astype(plane.dtype)


def _drawn(label: Label, orientation: Orientation) -> tuple[Float32, Float32]:
    """Return the opacity of the ground and of the letters, float32 [height, width] each, 0 to 1, in the coded picture."""
    from PIL import Image, ImageDraw, ImageFont

    coded = orientation.square_size
    width, height = coded if orientation.quarter_turns % 2 == 0 else coded[::-1]
    side = min(width, height)
    margin = round(_MARGIN * side)
    size = max(1.0, _HEIGHT * side)
    longest = max(1.0, width - 2 * margin - size)  # half a letter of ground on both sides
    # The other engine needs a library that not every machine has, and places letters in another way.
    font = ImageFont.truetype(str(_font_file()), size, layout_engine=ImageFont.Layout.BASIC)
    if (length := font.getlength(label.text)) > longest:
        size *= longest / length
        font = ImageFont.truetype(str(_font_file()), size, layout_engine=ImageFont.Layout.BASIC)
    ascent, descent = font.getmetrics()
    pad = round(size / 2)
    box_width, box_height = round(font.getlength(label.text)) + 2 * pad, ascent + descent + 2 * (pad // 2)
    down, across = label.position.split("-")
    left = margin if across == "left" else width - margin - box_width
    top = margin if down == "top" else height - margin - box_height
    layers = []
    for kind in ("ground", "letters"):
        picture = Image.new("L", (width, height))
        draw = ImageDraw.Draw(picture)
        if kind == "ground":
            draw.rectangle((left, top, left + box_width - 1, top + box_height - 1), fill=round(255 * _GROUND))
        else:
            draw.text((left + pad, top + pad // 2), label.text, fill=255, font=font)
        upright = np.rot90(np.asarray(picture, np.float32) / 255, -orientation.quarter_turns)
        turned = np.ascontiguousarray(upright[:, ::-1] if orientation.mirrored else upright)
        layers.append(_scaled(turned.astype(np.float32), orientation.width, orientation.height))
    return layers[0], layers[1]


def _scaled(layer: Float32, width: int, height: int) -> Float32:
    return np.asarray(cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA), np.float32)
