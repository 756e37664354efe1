"""Videos with another timeline than the footage: the background behind a dub whose frames are not the footage's, frame for frame.

Such a video is written without loss into the job's folder and then dubbed in place like any footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.media.encoders import WriteSettings
from gateway.media.pixels import ColourTags
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, plane_views
from gateway.media.types import DecodedFrame, MediaInfo, Orientation, Plane, VideoInfo
from gateway.media.writer import VideoWriter

_BACKWARDS: Final = 64
"""Least number of decoded frames that are stored at once while footage plays backwards."""
BACKGROUND_SUFFIX: Final = ".nut"
"""Ending of background videos. NUT keeps every time exactly, and holds FFV1."""


def own_timeline(info: MediaInfo, num_frames: int) -> MediaInfo:
    """Return the description of a video of `num_frames` frames with the footage's picture format and rate.

    Frame n is shown at n / rate. A rate that varies becomes its average. The video has no sound and no other streams.
    """
    rate = info.video.constant_rate or info.video.average_rate.limit_denominator(1001)
    times = np.arange(num_frames, dtype=np.int64)
    times.setflags(write=False)
    video = replace(info.video, time_base=1 / rate, average_rate=rate, pts=times, last_duration=1)
    return replace(info, video=video, audio=(), others=())


def background_writer(path: Path, described: MediaInfo, threads: int) -> VideoWriter:
    """Return the writer of a background video that `own_timeline` described."""
    video = described.video
    # `open_background` knows the orientation and the colours, which NUT with FFV1 does not hold.
    plain = replace(video, orientation=Orientation(video.width, video.height), colour=ColourTags())
    settings = WriteSettings(codec="ffv1", carry=False, threads=threads, overwrite=True)
    return VideoWriter(path, replace(described, video=plain), settings=settings)


def open_background(path: Path, described: MediaInfo) -> MediaInfo:
    """Return the description of a finished background video. `described` gives what FFV1 and NUT do not store.

    Raises:
        MediaUnsupportedError: the video is missing or damaged.
    """
    info = probe(path)
    colour = described.video.colour
    if described.video.pixel.full_range_name:
        colour = replace(colour, color_range=2)
    video = replace(
        info.video,
        orientation=described.video.orientation,
        colour=colour,
        average_rate=described.video.average_rate,
        field_order=described.video.field_order,
        metadata=described.video.metadata,
        hdr=described.video.hdr,
    )
    return replace(info, video=video, metadata=described.metadata)


def blank_picture(video: VideoInfo) -> av.VideoFrame:
    """Return a picture for planes that no decoder gave, with the footage's colour tags."""
    picture = av.VideoFrame(video.width, video.height, video.pixel.name)
    picture.colorspace, picture.color_range = video.colour.matrix, video.colour.color_range
    picture.color_primaries, picture.color_trc = video.colour.primaries, video.colour.transfer
    return picture


class FrameCache:
    """Chosen frames of a video, decoded once to disk, and read from there in any order."""

    def __init__(self, path: Path, info: MediaInfo, frames: Iterable[int], *, threads: int) -> None:
        """Decode `frames` of the video into the file `path`.

        Raises:
            MediaUnsupportedError: the video breaks off before the last one.
        """
        indices = sorted(set(frames))
        self._rows = {frame: row for row, frame in enumerate(indices)}
        self._video = info.video
        self._picture = blank_picture(info.video)
        with path.open("wb") as file, VideoReader(info, threads=threads) as reader:
            for frame in reader.frames(indices[0], indices[-1] + 1):
                if frame.index in self._rows:
                    for plane in frame.planes:
                        file.write(np.ascontiguousarray(plane).tobytes())
        self._bytes = np.memmap(path, np.uint8, mode="r").reshape(len(indices), -1)

    def planes(self, frame: int) -> tuple[Plane, ...]:
        """Return the planes of one of the frames, read-only."""
        row, planes, begin = self._bytes[self._rows[frame]], [], 0
        for shape in self._shapes():
            size = shape[0] * shape[1] * self._video.pixel.dtype.itemsize
            planes.append(row[begin : begin + size].view(self._video.pixel.dtype).reshape(shape))
            begin += size
        return tuple(planes)

    def _shapes(self) -> list[tuple[int, int]]:
        return [plane.shape for plane in plane_views(self._picture, self._video, writable=False)]


def write_frames(path: Path, info: MediaInfo, chosen: Sequence[int], *, threads: int, on_frame: Callable[[int], None]) -> None:
    """Write the background video that shows frame `chosen[n]` of the footage as its frame n.

    If `chosen` is not in order, decoded frames are stored in a file in the folder of `path` in the meantime. Of footage that plays
    backwards, an eighth is stored at once, or _BACKWARDS frames.

    Raises:
        MediaUnsupportedError: the footage breaks off.
        StorageFullError: no space is left. Nothing of the video is left.
    """
    described = own_timeline(info, len(chosen))
    picture = blank_picture(described.video)
    shelf = path.with_suffix(".frames")
    try:
        runs = _runs(chosen)
        # Footage that is shown again and again has hardly more runs than times it is shown.
        few = len(runs) <= 2 + len(chosen) // max(1, info.video.num_frames - 1)
        pictures = (
            (planes for run in runs for planes in _of_run(info, run, shelf, threads))
            if few
            else _from_cache(FrameCache(shelf, info, chosen, threads=threads), chosen)
        )
        with background_writer(path, described, threads) as writer:
            for number, planes in enumerate(pictures):
                writer.write(DecodedFrame(number, number, planes, picture, described.video), planes)
                on_frame(number + 1)
    finally:
        shelf.unlink(missing_ok=True)


def _runs(chosen: Sequence[int]) -> list[Sequence[int]]:
    """Return the longest stretches of frames, in order, of which each never falls or never rises."""
    runs: list[Sequence[int]] = []
    begin, direction = 0, 0
    for index, (first, second) in enumerate(pairwise(chosen), 1):
        step = (second > first) - (second < first)
        if step and direction and step != direction:
            runs.append(chosen[begin:index])
            begin, direction = index, 0
        else:
            direction = direction or step
    return [*runs, chosen[begin:]]


def _of_run(info: MediaInfo, run: Sequence[int], shelf: Path, threads: int) -> Iterator[tuple[Plane, ...]]:
    """Yield the planes of a run. Frames that play backwards are decoded in blocks, the last block first."""
    if run[0] <= run[-1]:
        yield from _in_order(info, run, threads)
        return
    size = max(_BACKWARDS, -(-len(run) // 8))
    for begin in range(0, len(run), size):
        block = run[begin : begin + size]
        shelf.unlink(missing_ok=True)  # the last block is still mapped into memory
        yield from _from_cache(FrameCache(shelf, info, block, threads=threads), block)


def _in_order(info: MediaInfo, chosen: Sequence[int], threads: int) -> Iterator[tuple[Plane, ...]]:
    done = 0
    with VideoReader(info, threads=threads) as reader:
        for frame in reader.frames(chosen[0], chosen[-1] + 1):
            while done < len(chosen) and chosen[done] == frame.index:
                yield frame.planes
                done += 1


def _from_cache(shelf: FrameCache, chosen: Sequence[int]) -> Iterator[tuple[Plane, ...]]:
    for frame in chosen:
        yield shelf.planes(frame)
