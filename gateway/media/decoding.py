"""Decoding of one stream, with errors that name the time up to which the file could be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from gateway.media.opening import broken_at, reason_of


@dataclass(slots=True)
class Reached:
    """How far a stream was decoded.

    Attributes:
        seconds: time up to which there are frames; None: there is no frame yet.
    """

    seconds: Fraction | None = None


def decoded(container: InputContainer, stream: Stream, path: Path, reached: Reached, *, field: str = "video") -> Iterator[Any]:
    """Yield the decoded frames of a stream.

    A recording may start in the middle of a stream: packets that cannot be decoded are skipped until the first frame comes.

    Args:
        container: the open file.
        stream: the stream, a video stream or an audio stream.
        path: path of the file, for errors.
        reached: how far the stream was decoded. The caller sets the time after each frame.
        field: option that names the file, for errors.

    Raises:
        MediaUnsupported: the file breaks off or cannot be decoded.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        # A read that the disk refuses is an OSError of the view (track_view.py), and an FFmpegError elsewhere.
        except (av.FFmpegError, OSError) as problem:
            if reached.seconds is None and isinstance(problem, av.InvalidDataError):
                continue
            raise broken_at(path, reached.seconds, reason_of(problem), field=field) from problem
        yield from frames
