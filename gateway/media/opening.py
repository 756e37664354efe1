"""Opens media files for reading, with errors that a person can act upon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from services.common.errors import MediaUnsupported


@contextmanager
def open_input(path: Path, *, field: str = "video") -> Iterator[InputContainer]:
    """Opens a media file for reading.

    Raises:
        MediaUnsupported: missing, a folder, unreadable, empty, or in no format that FFmpeg knows. `field` names the
            option at fault.
    """
    if path.is_dir():
        raise MediaUnsupported(f"{path} is a folder; give one media file", field=field)
    try:
        if path.stat().st_size == 0:
            raise MediaUnsupported(f"{path} is empty (0 bytes); copy it again from its source", field=field)
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise MediaUnsupported(f"{path} does not exist; check the path", field=field) from None
    except PermissionError:
        raise MediaUnsupported(f"{path} may not be read; give yourself read permission on it", field=field) from None
    except OSError as problem:
        raise MediaUnsupported(f"{path} cannot be read: {problem.strerror}", field=field) from problem
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as problem:
        raise MediaUnsupported(
            f"{path} is not a media file, or it is cut short: its header cannot be read ({_first_line(problem)}); "
            "play it in a media player to see whether it is whole",
            field=field,
        ) from problem
    try:
        yield container
    finally:
        container.close()


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not a cover picture.

    Raises:
        MediaUnsupported: there is none, or its codec cannot be decoded.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise MediaUnsupported(f"{path} holds a video stream in a codec that cannot be decoded here", field="video")
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise MediaUnsupported(f"{path} has no video stream (it holds: {kinds}); give footage with a picture", field="video")


def broken_at(path: Path, seconds: Fraction | None, problem: str, *, field: str = "video") -> MediaUnsupported:
    """The error for a file that breaks off or cannot be decoded, naming the time up to which it could be read."""
    where = "before its first frame" if seconds is None else f"after {float(seconds):.3f} s"
    return MediaUnsupported(
        f"{path} breaks {where}: {problem}; copy the file again, or cut it before that point (ffmpeg -i IN -t SECONDS -c copy OUT)",
        field=field,
    )


def _first_line(problem: BaseException) -> str:
    return (getattr(problem, "strerror", None) or str(problem) or type(problem).__name__).splitlines()[0]


def reason_of(problem: BaseException) -> str:
    """What FFmpeg says of a problem, in one line."""
    return _first_line(problem)
