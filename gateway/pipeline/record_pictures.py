"""Whole frames of the footage for face records, which hold the lower face only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gateway.media.reader import VideoReader, to_rgb
from gateway.pipeline.records import RecordFile
from services.common.array_types import UInt8


def record_pictures(reader: VideoReader, faces: RecordFile, rows: Sequence[int]) -> Iterator[tuple[Any, UInt8]]:
    """Yield each face record with its frame, uint8 RGB [H, W, 3], upright.

    Args:
        reader: the footage.
        faces: FACE_RECORDs of the footage.
        rows: record rows, at least one, one per frame, in the order of the footage.

    Raises:
        MediaUnsupported: the footage breaks off.
    """
    records = iter(rows)
    (record,) = faces.read_rows([next(records)])
    for frame in reader.frames(int(record["frame"])):
        if frame.index != record["frame"]:
            continue
        yield record, to_rgb(frame)
        row = next(records, None)
        if row is None:
            return
        (record,) = faces.read_rows([row])
