"""One decoded frame with a rendered mouth in its own planes."""

from __future__ import annotations

import cv2
import numpy as np

from gateway.compositing.detail import box_with_detail, luma_under_box
from gateway.compositing.planes import composite
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.pipeline.rendered_window import Mouth
from gateway.provenance.watermark.embedding import FrameMark
from services.common.array_types import Float64
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, invert
from services.common.face.native_pictures import native_affine


def coded_from_box(info: MediaInfo, pose: HeadPose) -> Float64:
    """Return the affine map from box pixels to coded luma samples, float64 [2, 3]."""
    upright_from_box = invert(box_from_frame(pose))
    coded = info.video.orientation.coded_from_upright
    return np.column_stack([coded[:, :2] @ upright_from_box[:, :2], coded[:, :2] @ upright_from_box[:, 2] + coded[:, 2]])


def seconds_of(frame: DecodedFrame, info: MediaInfo) -> float:
    """Return the time of a frame since the first frame of the film, seconds."""
    return float((frame.pts - int(info.video.pts[0])) * info.video.time_base)


def composite_frame(
    frame: DecodedFrame, info: MediaInfo, pose: HeadPose, mouth: Mouth, mark: FrameMark | None = None
) -> tuple[tuple[Plane, ...], int]:
    """Return the planes of a frame with a rendered mouth in them, and the mask's area in luma samples.

    Args:
        frame: the decoded frame.
        info: the film.
        pose: head pose in the frame.
        mouth: the mouth.
        mark: watermark of the frame; None: the film gets none.
    """
    video, side = info.video, len(mouth.detail)
    box, mask, coded = mouth.box, mouth.mask, coded_from_box(info, pose)
    shift = mouth.shift * np.float32(mouth.strength)
    if side:
        native = invert(native_affine(invert(coded), side // BOX_SIZE))
        shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side // BOX_SIZE)
        own = luma_under_box(frame.planes[0], video.pixel.bits, video.colour_model, native, side)
        box, coded = box_with_detail(box, mouth.detail, mask, mouth.skin, own), native
        mask = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    soft = mask.astype(np.float32) * (mouth.strength / 255.0)
    light = mark.luma(len(box)) if mark is not None else None
    result = composite(frame.planes, video.pixel, video.colour_model, coded, box, soft, shift=shift, light=light)
    return result.planes, result.mask.area_px
