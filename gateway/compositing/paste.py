"""Put a rendered box into an RGB frame: for live streams, which are shown and not encoded in the footage's own planes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from services.common.crops import BOX_SIZE, HeadPose, apply_affine, box_from_frame, invert

Pixels = npt.NDArray[np.uint8]


def paste_box(frame: Pixels, pose: HeadPose, box: Pixels, mask: npt.NDArray[np.float32]) -> Pixels:
    """A copy of `frame` with the rendered box blended in where the mask is.

    Args:
        frame: uint8 RGB [H, W, 3], upright.
        pose: of the head in it.
        box: uint8 RGB [160, 160, 3].
        mask: float32 [160, 160], 0 to 1.
    """
    frame_from_box = invert(box_from_frame(pose))
    corners = apply_affine(frame_from_box, np.array([[0, 0], [BOX_SIZE, 0], [0, BOX_SIZE], [BOX_SIZE, BOX_SIZE]], np.float64))
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [frame.shape[1], frame.shape[0]])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, [frame.shape[1], frame.shape[0]])
    result = frame.copy()
    if x1 <= x0 or y1 <= y0:
        return result
    local = frame_from_box.copy()
    local[:, 2] -= [x0, y0]
    size = (int(x1 - x0), int(y1 - y0))
    moved = cv2.warpAffine(box, local, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    weight = cv2.warpAffine(mask, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[..., None]
    region = result[y0:y1, x0:x1]
    region[...] = np.rint(np.clip(region * (1.0 - weight) + moved * weight, 0.0, 255.0)).astype(np.uint8)
    return result
