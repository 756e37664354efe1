"""The mouth at the footage's own resolution: the finished picture of a frame there, and how much fine detail the picture has.

A crop of 256 x 256 pixels hides how soft a mouth is on a close shot. So the energy of the finest band is compared with the truth's
on the footage's own grid: the luma without its Gaussian blur of one footage pixel, over the mouth box.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from gateway.compositing.detail import box_with_detail
from gateway.compositing.jaw import moved
from gateway.evaluation.image_metrics import MOUTH_BOX_HEIGHT, MOUTH_BOX_WIDTH
from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import ANCHOR_IN_CROP, BOX_ORIGIN, BOX_SIZE
from services.common.face.mouth_detail import enlarged, luma_of


@dataclass(frozen=True, slots=True)
class NativeTruth:
    """The real film at its own resolution.

    Attributes:
        luma: uint8 [T, 160 S, 160 S], luma of the render box at S pixels per box pixel; 0 where the frame does not show the face.
        footage_scale: float64 [T], footage pixels per box pixel; NaN where the frame does not show the face.
    """

    luma: UInt8 = field(repr=False)
    footage_scale: Float64 = field(repr=False)

    @property
    def scale(self) -> int:
        """Native pixels per box pixel, S."""
        return int(self.luma.shape[1]) // BOX_SIZE

    def energy(self, frame: int) -> float:
        """Return the energy of the finest band of the real mouth."""
        return self.energy_of(frame, self.luma[frame].astype(np.float32))

    def energy_of(self, frame: int, luma: Float32) -> float:
        """Return the energy of the finest band of a mouth in place of the real one.

        Args:
            frame: index of the frame.
            luma: float32 [160 S, 160 S].
        """
        scale = self.scale
        x, y = (int(scale * (anchor - origin)) for anchor, origin in zip(ANCHOR_IN_CROP, BOX_ORIGIN, strict=True))
        high, wide = scale * MOUTH_BOX_HEIGHT // 2, scale * MOUTH_BOX_WIDTH // 2
        mouth = luma[y - high : y + high, x - wide : x + wide]
        pixel = scale / float(self.footage_scale[frame])
        band = mouth - cv2.GaussianBlur(mouth, (0, 0), pixel, borderType=cv2.BORDER_REPLICATE)
        return float(np.square(band).mean(dtype=np.float64))


def finished_box(box: UInt8, mask: UInt8, skin: UInt8, detail: UInt8, own: UInt8) -> tuple[UInt8, Float32]:
    """Return the finished box at 160 pixels, uint8 [160, 160, 3], and the luma of the film under it, float32 [160 S, 160 S].

    Args:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        skin: uint8 [160, 160], the mask without lips (skin_under).
        detail: uint8 [160 S, 160 S]; empty: the box has no detail.
        own: uint8 [160 S, 160 S], luma of the real film.
    """
    size = own.shape[::-1]
    weight = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR), np.float32) / np.float32(255.0)
    if detail.size:
        large = box_with_detail(box, detail, mask, skin, own.astype(np.float32))
        box = np.asarray(cv2.resize(large, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        large = enlarged(box, len(own) // BOX_SIZE)
    return box, np.asarray(own + weight * (luma_of(large) - own), np.float32)


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
    region[...] = np.rint(moved(region, shift) * (1.0 - weight) + box * weight).astype(np.uint8)
    return result
