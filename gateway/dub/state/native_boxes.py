"""The lower face at the footage's own resolution, and whole frames of the footage.

The module measures how fine the face is filmed, and reads the luma of the lower face in the frames that a person is learned from.
Face records hold the lower face at the size of a render box, so tracking keeps the luma of short footage, and longer footage is
decoded again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from gateway.dub.state.disk import fillable_bytes
from gateway.dub.state.records import RecordFile, pose_of
from gateway.media.combs import deinterlaced_luma
from gateway.media.reader import FramePart, VideoReader, to_rgb_within
from gateway.media.types import DecodedFrame, VideoInfo
from services.common.array_types import Int64, UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, region_around_box
from services.common.face.mouth_detail import grey
from services.common.face.native_pictures import native_affine, native_scale
from services.common.face.sampling import sample_patch

_SAMPLES: Final = 48
"""Most records that the scale of a face is measured on, evenly spread."""
_MARGIN: Final = 16
"""Pixels of the frame around the render box that are looked at for combs."""


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


def scale_of(faces: RecordFile, rows: Sequence[int] | Int64, reduction: int = 1) -> int:
    """Return the native pixels per box pixel of a face, 1 to 4: the median over its records.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the face; none: 1.
        reduction: pixels of the footage per pixel of the frames that are written (VideoInfo).
    """
    if not len(rows):
        return 1
    indices = np.unique(np.linspace(0, len(rows) - 1, _SAMPLES).round().astype(int))
    scales = faces.read_rows([int(rows[index]) for index in indices])["scale"]
    return native_scale(float(np.median(scales)) / reduction)


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
    canvas: UInt8 | None = None
    for record, frame in record_frames(reader, faces, rows):
        if canvas is None:
            canvas = _canvas(frame.video)
        pose = pose_of(record)
        part = to_rgb_within(frame, region_around_box(pose, _MARGIN))
        yield _luma_around_box(part, pose).box(canvas, pose, scale)


@dataclass(frozen=True, slots=True, eq=False)
class _LumaPart:
    """Luma of a part of a frame.

    Attributes:
        luma: uint8 [rows, columns].
        left, top: pixel of the frame that is pixel (0, 0) of the part.
    """

    luma: UInt8
    left: int
    top: int

    def box(self, canvas: UInt8, pose: HeadPose, scale: int) -> UInt8:
        """Return the luma of the render box of a face, uint8 [160 scale, 160 scale], without combs of interlaced video.

        Args:
            canvas: uint8 of the size of the frame, which gets the part. OpenCV's rounding depends on the position in the frame.
        """
        rows, columns = self.luma.shape
        canvas[self.top : self.top + rows, self.left : self.left + columns] = deinterlaced_luma(self.luma)
        return native_luma(canvas, pose, scale)


def _canvas(video: VideoInfo) -> UInt8:
    """Return a black luma picture of the size of the upright frames of a video."""
    width, height = video.orientation.upright_size
    return np.zeros((height, width), np.uint8)


def _luma_around_box(part: FramePart, pose: HeadPose) -> _LumaPart:
    """Return the luma around the render box of a face that lies in a part of a frame, with all combs."""
    left, top, right, bottom = (max(edge, 0) for edge in region_around_box(pose, _MARGIN))
    rows, columns = slice(top - part.top, max(bottom - part.top, 0)), slice(left - part.left, max(right - part.left, 0))
    return _LumaPart(grey(part.rgb[rows, columns]), left, top)


class KeptLuma:
    """Luma around the face of each record of a video, as tracking saw it, in a file without a name. Nothing stays of the file when
    it is closed or the process ends.

    Only finely filmed faces are kept, and no face of long footage, for whose banks few frames are chosen.

    Args:
        folder: folder of the file.
    """

    MOST_FRAMES: Final = 900
    """Longest footage that is kept, frames."""
    MOST_BYTES: Final = 256 << 20
    """Largest file. Ten seconds of a face 600 px wide take 80 MB."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        # Offset in the file, rows and columns, left and top of each part; None: the face was not kept.
        self._entries: list[tuple[int, tuple[int, ...], int, int] | None] = []
        self._size = 0

    def begin(self, video: VideoInfo) -> None:
        """Begin with record row 0 of footage, unless the footage is too long or the disk is nearly full. Earlier luma goes."""
        self.close()
        if video.num_frames <= self.MOST_FRAMES and fillable_bytes(self._folder) >= 2 * self.MOST_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `close`

    def add(self, part: FramePart, pose: HeadPose) -> None:
        """Keep the luma around the face of the next record. A disk without space ends keeping.

        Args:
            part: part of the frame, at least the region of the render box with a margin of 16 pixels.
            pose: pose of the face in the frame.
        """
        if self._file is None:
            return
        around = _luma_around_box(part, pose) if native_scale(pose.scale) > 1 else None
        data = around.luma.tobytes() if around is not None else b""
        try:
            self._file.write(data)
        except OSError:
            self.close()
            return
        self._entries.append((self._size, around.luma.shape, around.left, around.top) if around is not None else None)
        self._size += len(data)
        if self._size > self.MOST_BYTES:
            self.close()

    def boxes(self, video: VideoInfo, faces: RecordFile, rows: Sequence[int], scale: int) -> Iterator[UInt8] | None:
        """Return an iterator over what `native_boxes` yields; None: the luma of a record was not kept.

        Args:
            video: picture of the footage.
            faces, rows, scale: as of `native_boxes`.
        """
        if self._file is None or len(self._entries) != faces.num_rows or any(self._entries[row] is None for row in rows):
            return None
        return self._boxes(_canvas(video), faces, rows, scale)

    def _boxes(self, canvas: UInt8, faces: RecordFile, rows: Sequence[int], scale: int) -> Iterator[UInt8]:
        assert self._file is not None
        self._file.flush()
        for row in rows:
            entry = self._entries[row]
            assert entry is not None
            offset, shape, left, top = entry
            data = os.pread(self._file.fileno(), shape[0] * shape[1], offset)
            (record,) = faces.read_rows([row])
            yield _LumaPart(np.frombuffer(data, np.uint8).reshape(shape), left, top).box(canvas, pose_of(record), scale)

    def close(self) -> None:
        """Remove what is kept."""
        if self._file is not None:
            with suppress(OSError):  # the last bytes may still wait for a full disk
                self._file.close()
        self._file, self._entries, self._size = None, [], 0
