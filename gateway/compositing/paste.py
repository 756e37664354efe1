"""Pasting of a rendered box into an RGB frame, for live streams. Dubs use planes.py, which keeps the footage's own planes."""

from __future__ import annotations

import cv2
import numpy as np

from gateway.compositing.blend import blend_box
from services.common.array_types import Float32, UInt8
from services.common.face.crops import HeadPose, box_from_frame, corners_of_box, invert


def paste_box(frame: UInt8, pose: HeadPose, box: UInt8, own: UInt8, mask: UInt8, shift: Float32) -> UInt8:
    """Return a copy of `frame`, moved by the shift, with the rendered box in the frame's colours blended in.

    Args:
        frame: uint8 RGB [H, W, 3], upright.
        pose: head pose in `frame`.
        box: the rendered box, uint8 RGB [160, 160, 3].
        own: the frame's own box after the move, uint8 RGB [160, 160, 3].
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        shift: float32 [160, 160, 2], box pixels, from gateway.compositing.jaw.jaw_shift.
    """
    blended, soft = blend_box(box, own, mask), mask.astype(np.float32) / np.float32(255.0)
    frame_from_box = invert(box_from_frame(pose))
    corners = corners_of_box(frame_from_box)
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [frame.shape[1], frame.shape[0]])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, [frame.shape[1], frame.shape[0]])
    result = frame.copy()
    if x1 <= x0 or y1 <= y0:
        return result
    local = frame_from_box.copy()
    local[:, 2] -= [x0, y0]
    size = (int(x1 - x0), int(y1 - y0))
    moved = cv2.warpAffine(blended, local, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    weight = cv2.warpAffine(soft, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[..., None]
    region = result[y0:y1, x0:x1]
    if shift.any():
        offset = cv2.warpAffine(shift, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        offset = cv2.transform(offset, local[:, :2])
        xs, ys = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)[:, None]
        found = cv2.remap(frame, offset[..., 0] + xs, offset[..., 1] + ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(region, found, where=((offset[..., 0] != 0) | (offset[..., 1] != 0))[..., None])
    region[...] = np.rint(np.clip(region * (1.0 - weight) + moved * weight, 0.0, 255.0)).astype(np.uint8)
    return result
