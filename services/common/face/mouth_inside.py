"""Map of the inside of a mouth: upper teeth move with the skull, lower teeth and tongue with the jaw, and lips cover both.

A spline through the lips stretches teeth when the lips part. So between the target inner lips, output pixel p shows the place

    u(p) = A p + b           upper part: a plane of the skull at the depth of the inner lips, seen in the source's head pose
    l(p) = u(p - d)          lower part: d is _JAW_SHARE of the chin's way in head space from source to target, in the target's view

of one source picture. All offsets are vertical; the columns between the corners of the mouth pass over from A to the line between
the source's corners, where the cheeks bound the teeth. The two parts meet in each column at the darkest row of the
source's inside, so that the border between both follows the edges of the teeth:

* If the target is further open than the source, there is a gap between both parts. The dark row fills the gap, so that no row of
  teeth is shown twice, and fades into one dark colour (`shaded`): a repeated row is a band of streaks, and where the source's
  teeth touch, the row is as light as a tooth.
* If the target is less open, the rows around the dark row are left out.

The inner lips are tracked to some pixels. A part shows rows up to _BEYOND_PX behind the source's inner lips, and follows the lips
where the lips uncover more. The head pose errs too, in turned heads by up to 5 pixels, which would hide whole teeth. So the lips
cover at most _COVERED_PX of what the source shows; beyond, a part follows its lip. Within _BAND_PX of the target inner lips, the
map passes over into the spline, which moves the lips.

Between frames of two videos, template matching finds that the lower teeth move by .75 and 1.04 of the chin's way, and by .61 and
.39 of the lower lip's. A share of .75 fits best between the lips of three people, and changes least from frame to frame.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.face.crops import BOX_SIZE, HeadPose, head_to_box
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, NUM_LIPS, mouth_area_positions

_CHIN: Final = mouth_area_positions((148, 152, 377))
_JAW_SHARE: Final = 0.75
"""Way of the lower teeth as a share of the chin's: teeth lie nearer to the joint of the jaw."""
_HALF: Final = len(LIPS_INNER) // 2
_BEYOND_PX: Final = 1.5
_COVERED_PX: Final = 2.0
_BAND_PX: Final = 2.0
_CORNER_BAND_PX: Final = 4.0
_BESIDE: Final = (0.2, 0.9)
"""Shares of the half width of the mouth from which the columns leave A, and at which they follow the corners of the mouth."""
_MIDDLE: Final = 0.45
"""Share of the half width of the mouth in which the common height of the dark rows is searched."""
_HEIGHTS: Final = np.linspace(0.1, 0.9, 17)
"""Heights among which the dark rows are searched, from the upper lip to the lower lip."""
_DARKNESS: Final = 20.0
"""Grey levels of a softmin over the rows: the dark rows move smoothly from frame to frame."""
_HEIGHT_SPREAD: Final = 0.15
"""Spread of the dark rows around their common height, as a share of the way from the upper lip to the lower lip."""
_NEIGHBOURS: Final = (13, 1)
"""Columns and rows of the kernel that tells where a column is dark."""
_NEIGHBOURS_PX: Final = 1.5
"""Standard deviation of the kernel, a Gaussian, box pixels."""
_SEAM_HEIGHT: Final = 0.75
"""Height of the seam of two parts that meet, as a share of the rows that are left out there."""
_SHADE_PX: Final = 1.5
"""Distance from both parts from which a gap is all dark, box pixels."""
_FEWEST_COLUMNS: Final = 4
_SIDE_PX: Final = 64.0


class MouthView(NamedTuple):
    """A mouth in a head pose.

    Attributes:
        mouth: float32 [59, 3], mouth-area landmarks, head space.
        rotation: float64 [3, 3], rotation of the head pose.
        landmarks: float32 [59, 2], the landmarks in box pixels.
    """

    mouth: Float32
    rotation: Float64
    landmarks: Float32

    def in_box(self, points: Float64) -> Float64:
        """Return head-space points [..., 3] in box pixels, float64 [..., 2]."""
        return head_to_box(points, HeadPose(1.0, self.rotation, np.zeros(3))).astype(np.float64)


class InsideMap(NamedTuple):
    """Where the inside of a mouth comes from.

    Attributes:
        backward: float32 [160, 160, 2], for each output pixel its position in the source's box, box pixels.
        gap: float32 [160, 160], 0 to 1: depth of the pixel in a gap between both parts, which the source does not show.
    """

    backward: Float32
    gap: Float32


def shaded(picture: Float32, gap: Float32, dark: Float32) -> Float32:
    """Return a warped picture with the gaps between upper and lower part filled with one dark colour, float32 [H, W, 3].

    Args:
        picture: float32 [H, W, 3], 0 to 255.
        gap: float32 [H, W], of the same pixels, from `inside_map`.
        dark: float32 [3], the dark of a wide mouth, 0 to 255. A gap with darker dark rows keeps their mean colour.
    """
    depth = gap[..., None]
    mean = (depth * picture).sum(axis=(0, 1)) / np.maximum(gap.sum(), np.float32(1e-6))
    return np.asarray(picture + depth * (np.minimum(dark, mean) - picture), np.float32)


def inside_map(backward: Float32, picture: npt.NDArray[np.uint8], source: MouthView, target: MouthView) -> InsideMap:
    """Return a backward map with the inside of the mouth moved as skull and jaw move.

    Args:
        backward: float32 [160, 160, 2], map of the spline: for each output pixel its position in the source's box.
        picture: uint8 [160, 160, 3], RGB, the source's box.
        source: the mouth in the picture.
        target: the mouth to show.
    """
    upper, lower = _inner_lips(target)
    columns = np.arange(max(0, int(np.ceil(upper[0, 0]))), min(BOX_SIZE, int(upper[-1, 0]) + 1), dtype=np.float64)
    top, bottom = _between(upper, lower, columns)
    first, last = max(0, int(top.min(initial=BOX_SIZE))), min(BOX_SIZE, int(np.ceil(bottom.max(initial=0.0))) + 1)
    if len(columns) < _FEWEST_COLUMNS or last <= first:
        return InsideMap(backward, np.zeros((BOX_SIZE, BOX_SIZE), np.float32))
    skull, (across, down) = _motions(source, target)

    source_upper, source_lower = _inner_lips(source)
    width, source_width = upper[-1, 0] - upper[0, 0], source_upper[-1, 0] - source_upper[0, 0]
    along = (columns - upper[0, 0]) / width
    beside = _smooth((np.abs(2.0 * along - 1.0) - _BESIDE[0]) / (_BESIDE[1] - _BESIDE[0]))
    rigid = skull[0, 0] * columns + skull[0, 1] * 0.5 * (top + bottom) + skull[0, 2]
    source_columns = rigid + beside * (source_upper[0, 0] + along * source_width - rigid)
    source_columns = np.clip(source_columns, source_upper[0, 0], source_upper[-1, 0])
    source_top, source_bottom = _between(source_upper, source_lower, source_columns)

    skull_top = skull[1, 0] * columns + skull[1, 1] * top + skull[1, 2]
    jaw_bottom = skull[1, 0] * (columns - across) + skull[1, 1] * (bottom - down) + skull[1, 2]
    upper_offset = np.clip(skull_top, source_top - _BEYOND_PX, source_top + _COVERED_PX) - top
    lower_offset = np.clip(jaw_bottom, source_bottom - _COVERED_PX, source_bottom + _BEYOND_PX) - bottom
    dark = _dark_rows(picture, source_columns, source_top, source_bottom, np.abs(2.0 * along - 1.0) < _MIDDLE)

    rows = np.arange(first, last, dtype=np.float64)[:, None]
    left_out = lower_offset - upper_offset
    parted = np.maximum(np.minimum(rows + upper_offset, dark), rows + lower_offset)
    seam = np.clip(dark - 0.5 * left_out - upper_offset, top, bottom)
    height = np.maximum(_SEAM_HEIGHT * left_out, 1.0)
    joined = rows + upper_offset + left_out * _smooth((rows - seam) / height + 0.5)
    shown = np.stack(np.broadcast_arrays(source_columns, np.where(left_out > 0.0, joined, parted)), axis=-1).astype(np.float32)

    depth = np.minimum(rows - top, bottom - rows) / _BAND_PX
    edge = np.minimum(columns - upper[0, 0], upper[-1, 0] - columns) / _CORNER_BAND_PX
    weight = _smooth(np.minimum(depth, edge)).astype(np.float32)[..., None]
    moved, gap = backward.copy(), np.zeros((BOX_SIZE, BOX_SIZE), np.float32)
    box = slice(first, last), slice(int(columns[0]), int(columns[-1]) + 1)
    moved[box] += weight * (shown - moved[box])
    # Where the parts overlap, no row lies below the upper part and above the lower part.
    inward = np.minimum(rows + upper_offset - dark, dark - lower_offset - rows)
    gap[box] = weight[..., 0] * _smooth(inward / _SHADE_PX)
    return InsideMap(moved, gap)


def _inner_lips(view: MouthView) -> tuple[Float64, Float64]:
    """Return the inner upper and lower lip, float64 [11, 2] each, from the right corner to the left corner, x increasing."""
    inner = view.landmarks[len(LIPS_OUTER) : NUM_LIPS].astype(np.float64)
    lips = inner[: _HALF + 1], np.concatenate([inner[_HALF:], inner[:1]])[::-1]
    return tuple(np.stack([np.maximum.accumulate(lip[:, 0]), lip[:, 1]], axis=1) for lip in lips)  # type: ignore[return-value]


def _between(upper: Float64, lower: Float64, columns: Float64) -> tuple[Float64, Float64]:
    """Return the rows of both lips in columns, float64 [N] each; the lower lip is never above the upper lip."""
    top, bottom = (np.interp(columns, lip[:, 0], lip[:, 1]) for lip in (upper, lower))
    return top, np.maximum(top, bottom)


def _motions(source: MouthView, target: MouthView) -> tuple[Float64, Float64]:
    """Return the affine map of a plane of the skull from the target's box to the source's box, float64 [2, 3], and the way of the
    lower teeth from the source to the target in the target's box, float64 [2]."""
    depth = float(source.mouth[len(LIPS_OUTER) : NUM_LIPS, 2].mean(dtype=np.float64))
    plane = np.array([[0.0, 0.0, depth], [_SIDE_PX, 0.0, depth], [0.0, _SIDE_PX, depth]])
    teeth = plane[0] + _JAW_SHARE * (target.mouth[_CHIN].astype(np.float64) - source.mouth[_CHIN]).mean(axis=0)
    (here, *sides, moved), (there, *source_sides) = target.in_box(np.concatenate([plane, teeth[None]])), source.in_box(plane)
    turn = np.stack([side - there for side in source_sides], axis=1) @ np.linalg.pinv(
        np.stack([side - here for side in sides], axis=1)
    )
    return np.concatenate([turn, (there - turn @ here)[:, None]], axis=1), moved - here


def _dark_rows(
    picture: npt.NDArray[np.uint8], columns: Float64, top: Float64, bottom: Float64, middle: npt.NDArray[np.bool_]
) -> Float64:
    """Return the darkest row of a source's inside in each column, float64 [N].

    One height between the lips is the darkest of all columns. The row of each column is near this height, where the column and its
    neighbours are dark: the edges of teeth are no straight line.
    """
    x, y = (np.asarray(each, np.float32) for each in np.broadcast_arrays(columns, top + _HEIGHTS[:, None] * (bottom - top)))
    # OpenCV 5.0 reads an empty second map in a linear remap.
    samples = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    levels = samples.mean(axis=2, dtype=np.float64)
    whole = _darkest(levels[:, middle].mean(axis=1, keepdims=True), 0.0)
    nearby = cv2.GaussianBlur(levels, _NEIGHBOURS, sigmaX=_NEIGHBOURS_PX, borderType=cv2.BORDER_REPLICATE)
    heights = _darkest(np.asarray(nearby, np.float64), 0.5 * np.square((_HEIGHTS[:, None] - whole) / _HEIGHT_SPREAD))
    return np.asarray(top + heights * (bottom - top))


def _darkest(levels: Float64, cost: Float64 | float) -> Float64:
    """Return the height with the least grey level and cost in each column, a soft minimum over _HEIGHTS: float64 [N]."""
    loss = levels / _DARKNESS + cost
    weights = np.exp(loss.min(axis=0) - loss)
    return np.asarray(_HEIGHTS @ weights / weights.sum(axis=0))


def _smooth(share: Float64) -> Float64:
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share))
