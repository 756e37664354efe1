"""The lower face at the footage's own resolution, and whole frames of the footage.

The module measures how fine the face is filmed, and reads the luma of the lower face in the frames that a person is learned from.
Face records hold the lower face only, so whole frames are decoded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from gateway.dub.records import RecordFile, pose_of
from gateway.media.pixels import deinterlaced_luma
from gateway.media.reader import VideoReader, to_rgb_within
from gateway.media.types import DecodedFrame
from services.common.array_types import Int64, UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, region_around_box
from services.common.face.mouth_detail import grey
from services.common.face.native_pictures import native_affine, native_scale
from services.common.face.sampling import sample_patch


def record_frames(reader: VideoReader, faces: RecordFile, rows: Sequence[int]) -> Iterator[tuple[Any, DecodedFrame]]:
    """Yield each face record with its frame.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows, at least one, one per frame, in the order of the footage.

    Raises:
        MediaUnsupportedError: the footage breaks off.
    """
    records = iter(rows)
    (record,) = faces.read_rows([next(records)])
    for frame in reader.frames(int(record["frame"])):
        if frame.index != record["frame"]:
            continue
        yield record, frame
        row = next(records, None)
        if row is None:
            return
        (record,) = faces.read_rows([row])


_SAMPLES: Final = 48
"""Most records that the scale of a face is measured on, evenly spread."""
_MARGIN: Final = 16
"""Pixels of the frame around the render box that are looked at for combs."""


def scale_of(faces: RecordFile, rows: Sequence[int] | Int64) -> int:
    """Return the native pixels per box pixel of a face, 1 to 4: the median over its records.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the face; none: 1.
    """
    if not len(rows):
        return 1
    places = np.unique(np.linspace(0, len(rows) - 1, _SAMPLES).round().astype(int))
    scales = faces.read_rows([int(rows[place]) for place in places])["scale"]
    return native_scale(float(np.median(scales)))


def native_luma(luma: UInt8, pose: HeadPose, scale: int) -> UInt8:
    """Return the luma of the render box of a face, uint8 [160 scale, 160 scale].

    Args:
        luma: luma of the upright frame, uint8 [H, W].
        scale: native pixels per box pixel.
    """
    side = scale * BOX_SIZE
    return sample_patch(luma, native_affine(box_from_frame(pose), scale), (side, side))


def native_boxes(reader: VideoReader, faces: RecordFile, rows: Sequence[int], scale: int) -> Iterator[UInt8]:
    """Yield the luma of the render box of each record, uint8 [160 scale, 160 scale], without combs of interlaced video.

    Args:
        reader: the footage, which is decoded again.
        faces: FACE_RECORDs of the footage.
        rows: record rows of one face, at least one, in the order of the footage.
        scale: native pixels per box pixel.

    Raises:
        MediaUnsupportedError: the footage breaks off.
    """
    for record, frame in record_frames(reader, faces, rows):
        pose = pose_of(record)
        yield native_luma(_luma_around(frame, pose), pose, scale)


def _luma_around(frame: DecodedFrame, pose: HeadPose) -> UInt8:
    """Return the luma of a frame, uint8 [H, W], without combs around the render box. Samples farther away may be 0."""
    left, top, right, bottom = (max(edge, 0) for edge in region_around_box(pose, _MARGIN))
    rgb = to_rgb_within(frame, (left, top, right, bottom))
    luma = np.zeros(rgb.shape[:2], np.uint8)
    luma[top:bottom, left:right] = deinterlaced_luma(grey(rgb[top:bottom, left:right]))
    return luma
