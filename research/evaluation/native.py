"""The mouth at the footage's own resolution: the finished picture of a frame there, and how much fine detail the picture has.

A crop of 256 x 256 pixels hides how soft a mouth is on a close shot. So the energy of the finest band is compared with the truth's
on the footage's own pixels, into which the finished box is resampled as in a dub. The band is the luma without its Gaussian blur of
one pixel, over the mouth box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from gateway.compositing.detail import box_with_detail
from gateway.compositing.jaw import warp_footage
from gateway.compositing.planes import picture_at, weight_at
from research.evaluation.image_metrics import MOUTH_BOX_HEIGHT, MOUTH_BOX_WIDTH
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.face.crops import ANCHOR_IN_CROP, BOX_ORIGIN, BOX_SIZE, HeadPose, box_from_frame, invert
from services.common.face.mouth_detail import enlarged, luma_of
from services.common.face.native_pictures import native_affine

_MARGIN_PX: Final = 4
"""Pixels around the mouth box that the blur of the finest band sees."""
_SUBPIXEL_BITS: Final = 4


@dataclass(frozen=True, slots=True)
class FootagePatch:
    """Pixels of the real film around a mouth.

    Attributes:
        luma: uint8 [H, W], upright, as decoded; empty: the mouth is outside of the frame.
        from_native: float64 [2, 3], native pixels of the render box -> pixels of the patch.
        mouth: bool [H, W], the mouth box.
    """

    luma: UInt8 = field(repr=False)
    from_native: Float64
    mouth: Bool = field(repr=False)

    def energy(self) -> float:
        """Return the energy of the finest band of the real mouth; NaN: the mouth is outside of the frame."""
        return self._energy(self.luma.astype(np.float32))

    def energy_of(self, luma: Float32, mask: UInt8) -> float:
        """Return the energy of the finest band of a mouth that is blended into the film; NaN: the mouth is outside of the frame.

        Args:
            luma: float32 [160 S, 160 S], the finished box.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
        """
        if not self.mouth.any():
            return float("nan")
        shape = self.luma.shape
        weight = np.asarray(cv2.resize(mask, luma.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32) / np.float32(255.0)
        blended = self.luma + weight_at(weight, self.from_native, shape) * (picture_at(luma, self.from_native, shape) - self.luma)
        return self._energy(np.rint(blended))

    def _energy(self, luma: Array) -> float:
        if not self.mouth.any():
            return float("nan")
        band = luma - cv2.GaussianBlur(luma, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
        return float(np.square(band[self.mouth]).mean(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class NativeTruth:
    """The real film at its own resolution.

    Attributes:
        luma: uint8 [T, 160 S, 160 S], luma of the render box at S pixels per box pixel; 0 where the frame does not show the face.
        patches: for each frame its pixels around the mouth; None: the frame does not show the face.
    """

    luma: UInt8 = field(repr=False)
    patches: list[FootagePatch | None] = field(repr=False)

    @property
    def scale(self) -> int:
        """Native pixels per box pixel, S."""
        return int(self.luma.shape[1]) // BOX_SIZE

    def energy_of(self, frame: int, luma: Float32, mask: UInt8) -> float:
        """Return the energy of the finest band of a mouth in place of the real one, in a frame that shows the face.

        Args:
            frame: index of the frame.
            luma: float32 [160 S, 160 S], the finished box.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
        """
        patch = self.patches[frame]
        assert patch is not None, "the frame shows the face"
        return patch.energy_of(luma, mask)


def footage_patch(luma: UInt8, pose: HeadPose, scale: int) -> FootagePatch:
    """Return the pixels of a frame around the mouth of a face.

    Args:
        luma: uint8 [H, W], luma of the upright frame.
        scale: native pixels per box pixel.
    """
    frame_from_native = invert(native_affine(box_from_frame(pose), scale))
    x, y = (scale * (anchor - origin) for anchor, origin in zip(ANCHOR_IN_CROP, BOX_ORIGIN, strict=True))
    half_height, half_width = scale * MOUTH_BOX_HEIGHT / 2, scale * MOUTH_BOX_WIDTH / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    native = (x, y) + signs * (half_width, half_height) - 0.5
    corners = native @ frame_from_native[:, :2].T + frame_from_native[:, 2]
    begin = np.clip(np.floor(corners.min(axis=0)).astype(int) - _MARGIN_PX, 0, luma.shape[::-1])
    end = np.clip(np.ceil(corners.max(axis=0)).astype(int) + _MARGIN_PX + 1, begin, luma.shape[::-1])
    part = luma[begin[1] : end[1], begin[0] : end[0]].copy()
    mouth = np.zeros(part.shape, np.uint8)
    if mouth.size:
        places = np.rint((corners - begin) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillConvexPoly(mouth, places, (1,), lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    from_native = frame_from_native.copy()
    from_native[:, 2] -= begin
    return FootagePatch(part, from_native, mouth.astype(np.bool_))


def finished_box(box: UInt8, mask: UInt8, skin: UInt8, detail: UInt8, own: UInt8) -> tuple[UInt8, Float32]:
    """Return the finished box at 160 pixels, uint8 [160, 160, 3], and its luma at native size, float32 [160 S, 160 S].

    Args:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        skin: uint8 [160, 160], the mask without lips (skin_under).
        detail: uint8 [160 S, 160 S]; empty: the box has no detail.
        own: uint8 [160 S, 160 S], luma of the real film.
    """
    if detail.size:
        large = box_with_detail(box, detail, mask, skin, own.astype(np.float32))
        box = np.asarray(cv2.resize(large, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        large = enlarged(box, len(own) // BOX_SIZE)
    return box, luma_of(large)


def insert_box(crop: UInt8, box: UInt8, mask: UInt8, shift: Float32) -> UInt8:
    """Return a face crop with a finished render box in it, blended as compositing blends the box into the planes of a film.

    Args:
        crop: uint8 [256, 256, 3], RGB.
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        shift: float32 [160, 160, 2], how the crop is moved under and around the box, box pixels (jaw_shift).
    """
    result = crop.copy()
    x, y = BOX_ORIGIN
    region = result[y : y + BOX_SIZE, x : x + BOX_SIZE]
    weight = mask[..., None].astype(np.float32) / 255.0
    region[...] = np.rint(warp_footage(region, shift) * (1.0 - weight) + box * weight).astype(np.uint8)
    return result
