"""Blending of a rendered box with the footage's own box without a visible seam (Burt and Adelson 1983, Laplacian pyramids).

    blend = sum over levels l of  up(  G_l(m) L_l(rendered) + (1 - G_l(m)) L_l(original)  )
    box   = original + s (blend - original)

L are Laplacian pyramids and G are Gaussian pyramids. Coarse levels blend over a wide band, fine levels over a narrow band. The
pyramid reaches beyond the mask m. The support weight s falls to 0 at the edge of the support of m, so pixels outside do not change.

Before the blend, the colours of the rendered box are matched to the footage. In the ring between the inner and the outer mask, down
to the end of the cheeks, both pictures show the same skin, so their colours should agree there. Below the cheeks they need not
agree: if the footage's jaw hangs lower than the target jaw, the footage shows skin where the render shows the shadow of the neck.

1. An offset per channel: the median difference over the ring. There is no gain, because the contrast in the ring (an edge of the
   jaw, a collar) differs between channels and would tint the lips.
2. A smooth field for the remaining difference of low frequency (a light from one side), by normalised convolution (Knutsson and
   Westin 1993): field = blur(w d) / blur(w), d = original - rendered in the ring, w = robust weights in the ring.

`paste_box` pastes a box into an RGB frame, for live streams. Dubs use planes.py, which keeps the footage's own planes.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, Float32, UInt8
from services.common.errors import ContractBrokenError
from services.common.face.crops import BOX_SIZE, CHEEKS_BOTTOM, HeadPose, apply_affine, box_from_frame, invert
from services.common.face.native_pictures import native_affine

Picture = UInt8 | Float32

_LEAST_RING_PX: Final = 64
_FIELD_SIGMA_PX: Final = 20.0
_SHRINK: Final = 4
_LEAST_RING_SHARE: Final = 0.02
"""Share of the ring in a pixel's neighbourhood under which the field fades out."""
_FIELD_LIMIT: Final = 16.0
"""Largest value of the field, of 255. If the difference is larger, footage and render show different things."""
_OUTLIER: Final = 4.0
"""Robust standard deviations from the median difference of the ring beyond which a pixel is left out."""
_MAD_TO_SIGMA: Final = 1.4826
_LEVELS: Final = 4
"""Number of pyramid levels. The coarsest level blends over about 2^4 box pixels."""
SUPPORT_FEATHER_PX: Final = 4.0
"""Width of the rim in which the blend gives way to the footage, box pixels."""
_FULL: Final = 255
_MOUTH: Final = (slice(44, None), slice(34, 126))
"""Rows and columns of the render box with lips, chin and the skin that moves with them, where footage and render may differ. The
cheeks beside them are the same skin in both pictures, so their colours are matched under the whole mask: a narrow rim of the mask
alone would say little of the light on a cheek, and the cheek would flicker.
"""


def match_colour(rendered: Picture, original: Picture, inner: Float32, outer: Float32) -> Float32:
    """Return the rendered box in the footage's colours.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        inner: float32 [rows, columns]; > 0 where only the render counts (mouth and moving jaw).
        outer: float32 [rows, columns]; > 0 within the hull of the lower face. The ring is outer without inner, above row
            CHEEKS_BOTTOM. If the ring has fewer than 64 pixels, the colours do not change.

    Returns:
        float32 [rows, columns, 3] in 0 to 255.

    Raises:
        ContractBrokenError: shapes that do not match.
    """
    if rendered.shape != original.shape or not rendered.shape[:2] == inner.shape == outer.shape:
        raise ContractBrokenError(
            f"rendered {rendered.shape}, original {original.shape}, masks {inner.shape} {outer.shape} do not match"
        )
    source, target = np.asarray(rendered, np.float32), np.asarray(original, np.float32)
    ring = (outer > 0) & ~(inner > 0)
    ring[CHEEKS_BOTTOM:] = False
    if int(ring.sum()) < _LEAST_RING_PX:
        return source
    # A median along contiguous rows takes a fifth of the time.
    inside = np.ascontiguousarray((target - source)[ring].T)
    offset = np.median(inside, axis=1)
    field = _smooth_field(inside - offset[:, None], ring)
    return np.asarray(np.clip(source + (offset + field), 0.0, 255.0), np.float32)


def _smooth_field(inside: Float32, ring: Bool) -> Float32:
    """Return the smooth field of a difference, float32 [rows, columns, 3].

    Args:
        inside: float32 [3, P], the difference at the pixels of the ring, with a median of 0.
        ring: bool [rows, columns].
    """
    deviation = np.abs(inside)
    sigma = np.maximum(_MAD_TO_SIGMA * np.median(deviation, axis=1), 1.0)
    kept = np.all(deviation <= (_OUTLIER * sigma)[:, None], axis=0)
    weighted = np.zeros((*ring.shape, 4), np.float32)
    weighted[ring] = (np.concatenate([inside, np.ones((1, len(kept)), np.float32)]) * kept).T
    # The field has no detail that a quarter of the size would lose.
    rows, columns = ring.shape
    small = cv2.resize(weighted, (-(-columns // _SHRINK), -(-rows // _SHRINK)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _FIELD_SIGMA_PX / _SHRINK, borderType=cv2.BORDER_REPLICATE)
    total = small[..., 3:]
    field = small[..., :3] / np.maximum(total, 1e-6)
    # Far from the ring the field is unknown and fades to 0.
    weight = np.clip(total / np.float32(_LEAST_RING_SHARE), 0.0, 1.0)
    field = np.clip(field * weight, -_FIELD_LIMIT, _FIELD_LIMIT)
    return np.asarray(cv2.resize(field, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)


def blend_box(rendered: UInt8, original: UInt8, mask: UInt8) -> UInt8:
    """Return a rendered box in the colours of the footage's own box, blended into the footage's own box.

    Args:
        rendered: RGB [rows, columns, 3].
        original: the footage's own box, RGB [rows, columns, 3].
        mask: [rows, columns]; 255 where the rendered box shows, 0 where the result equals `original`.

    Raises:
        ContractBrokenError: shapes that do not match.
    """
    soft = mask.astype(np.float32) / 255.0
    inner = np.zeros(mask.shape, np.float32)
    inner[_MOUTH] = mask[_MOUTH] == _FULL
    matched = match_colour(rendered, original, inner, soft)
    blended = laplacian_blend(matched, original, soft)
    return np.asarray(np.clip(np.rint(blended), 0, 255), np.uint8)


def without_cover(original: UInt8, rendered: UInt8, covered: Bool | None) -> UInt8:
    """Return the box that a rendered box is blended into: the colours of what covers the face must not reach the face.

    Args:
        original: the footage's own box, RGB [rows, columns, 3].
        rendered: RGB [rows, columns, 3].
        covered: bool [rows, columns], pixels of what covers the face; None: the face is free.
    """
    return original if covered is None else np.where(covered[..., None], rendered, original)


def laplacian_blend(rendered: Picture, original: Picture, mask: Float32) -> Float32:
    """Return the blend of a rendered box and the footage's own box.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        mask: float32 [rows, columns] in [0, 1]; 1 where the rendered box shows, 0 outside the hull of the lower face.

    Returns:
        float32 [rows, columns, 3] in 0 to 255; equal to `original` wherever `mask` is 0.

    Raises:
        ContractBrokenError: shapes that do not match.
    """
    if rendered.shape != original.shape or rendered.shape[:2] != mask.shape:
        raise ContractBrokenError(f"rendered {rendered.shape}, original {original.shape} and mask {mask.shape} do not match")
    footage = np.asarray(original, np.float32)
    # Only the difference is blended: the pyramid is linear, so this equals blending both pictures, at half the cost.
    difference = np.asarray(rendered, np.float32) - footage
    blended = _blended_difference(difference, np.asarray(mask, np.float32))
    weight = support_weight(mask)[..., None]
    return np.asarray(np.clip(footage + weight * blended, 0.0, 255.0), np.float32)


def support_weight(mask: Float32) -> Float32:
    """Return float32 [rows, columns]: 0 outside the support of `mask`, rising smoothly to 1 within SUPPORT_FEATHER_PX pixels from
    the edge of the support inwards.
    """
    inside = (mask > 0).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    ramp = np.clip(distance / np.float32(SUPPORT_FEATHER_PX), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3.0 - 2.0 * ramp), np.float32)


def _blended_difference(difference: Float32, mask: Float32) -> Float32:
    current, weight = difference, mask
    bands: list[Float32] = []
    for _ in range(_LEVELS):
        smaller = np.asarray(cv2.pyrDown(current), np.float32)
        expanded = np.asarray(cv2.pyrUp(smaller, dstsize=(current.shape[1], current.shape[0])), np.float32)
        bands.append((current - expanded) * weight[..., None])
        current, weight = smaller, np.asarray(cv2.pyrDown(weight), np.float32)
    result = current * weight[..., None]
    for band in reversed(bands):
        result = np.asarray(cv2.pyrUp(result, dstsize=(band.shape[1], band.shape[0])), np.float32) + band
    return result


def paste_box(frame: UInt8, pose: HeadPose, box: UInt8, mask: UInt8, shift: Float32, *, light: Float32 | None = None) -> UInt8:
    """Return a copy of `frame`, moved by the shift, with a finished box in it.

    Args:
        frame: uint8 RGB [H, W, 3], upright.
        pose: head pose in `frame`.
        box: the finished box, uint8 RGB [160 S, 160 S, 3], at S >= 1 pixels per box pixel.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        shift: float32 [160, 160, 2], box pixels, from gateway.compositing.jaw.move_jaw.
        light: float32 [160, 160], grey levels that are added to the box: a watermark; None: nothing is added.
    """
    soft = mask.astype(np.float32) / np.float32(255.0)
    frame_from_box, changed = invert(box_from_frame(pose)), (mask > 0) | shift.any(axis=-1)
    left, top, width, height = cv2.boundingRect(changed.view(np.uint8))
    # Interpolation reaches a box pixel further.
    edges = np.array([(x, y) for x in (left - 1, left + width) for y in (top - 1, top + height)], np.float64)
    corners = apply_affine(frame_from_box, edges)
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [frame.shape[1], frame.shape[0]])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, [frame.shape[1], frame.shape[0]])
    result = frame.copy()
    if not changed.any() or x1 <= x0 or y1 <= y0:
        return result
    local = frame_from_box.copy()
    local[:, 2] -= [x0, y0]
    size = (int(x1 - x0), int(y1 - y0))
    native = invert(native_affine(invert(local), len(box) // BOX_SIZE))
    moved = cv2.warpAffine(box, native, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    if light is not None:
        moved += cv2.warpAffine(light, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[..., None]
    weight = cv2.warpAffine(soft, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[..., None]
    region = result[y0:y1, x0:x1]
    if shift.any():
        offset = cv2.warpAffine(shift, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        offset = cv2.transform(offset, local[:, :2])
        xs, ys = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)[:, None]
        filmed = cv2.remap(frame, offset[..., 0] + xs, offset[..., 1] + ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(region, filmed, where=((offset[..., 0] != 0) | (offset[..., 1] != 0))[..., None])
    region[...] = np.rint(np.clip(region * (1.0 - weight) + moved * weight, 0.0, 255.0)).astype(np.uint8)
    return result
