"""Opens media files for reading, with errors that name a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from gateway.media.bounds import MAX_SAMPLES
from gateway.media.formats import INPUT_OPTIONS, external_reference, playlist_kind
from gateway.media.regular_file import descriptor_url, reading
from gateway.media.track_view import Only, TrackView, track_view
from services.common.errors import MediaUnsupported
from services.common.server.resources import give_back_freed_memory

_LARGE_INDEX: Final = 50_000
"""Number of entries from which on an index is large. Twelve minutes of picture and sound have as many."""
_VIEW_BUFFER: Final = 256 << 10
"""Bytes that FFmpeg reads of a view at once. FFmpeg reads files itself, with its own buffer."""


@contextmanager
def open_input(path: Path, *, field: str = "video", only: Only | None = None) -> Iterator[InputContainer]:
    """Open a media file for reading. The gateway and the command line open media here only.

    FFmpeg gets the descriptor of the checked file instead of the path. So FFmpeg takes no name for a protocol or a pattern, and the
    file cannot be exchanged between check and use. Formats that open other files are refused.

    Args:
        path: the file.
        field: option or field that names the file, for errors.
        only: what the caller reads; None: all. Of long films the other tracks are hidden, so streams may have other numbers.

    Raises:
        MediaUnsupported: the file is missing, not regular, unreadable, empty, or in a format that is not read. `field` names the
            option at fault.
    """
    with ExitStack() as stack:
        with reading(path, field=field) as handle:
            view = track_view(handle, only) if only is not None else None
            if view is not None:
                stack.callback(view.close)
            container = _open(handle, path, field, view)
        stack.callback(container.close)
        yield container


def _open(handle: int, path: Path, field: str, view: TrackView | None) -> InputContainer:
    playlist = playlist_kind(handle)
    if playlist is not None:
        raise MediaUnsupported(f"{path} is {playlist}, which only names media; give the media file itself", field=field)
    try:
        source = descriptor_url(handle) if view is None else view
        container = av.open(source, "r", metadata_errors="replace", container_options=INPUT_OPTIONS, buffer_size=_VIEW_BUFFER)
    except (av.FFmpegError, OSError, ValueError) as problem:
        raise _not_opened(path, field, problem) from problem
    if container.format.name.startswith("mov,"):
        try:
            _refuse_external(handle, path, field)
            _refuse_claims(container, os.fstat(handle).st_size, path, field)
        except MediaUnsupported:
            container.close()
            raise
        if _entries(container) > _LARGE_INDEX:
            # Reading the index of two hours takes 52 MB of memory, of which FFmpeg has freed 32 MB by now.
            give_back_freed_memory()
    return container


def _refuse_external(handle: int, path: Path, field: str) -> None:
    if external_reference(handle):
        raise MediaUnsupported(
            f"{path} has its picture or sound in another file, which it only names; "
            "save it as one self-contained file (ffmpeg -i IN -c copy OUT.mov)",
            field=field,
        )


def _refuse_claims(container: InputContainer, file_bytes: int, path: Path, field: str) -> None:
    """Refuse an index that the file cannot hold. FFmpeg takes 24 bytes of memory per entry of the index, each time the file is
    opened.
    """
    claimed = [stream.frames for stream in container.streams]
    if max(claimed, default=0) > file_bytes or _entries(container) > MAX_SAMPLES:
        raise MediaUnsupported(
            f"{path} claims {sum(claimed)} frames and pieces of sound in {file_bytes} bytes; at most {MAX_SAMPLES} are "
            "read, and each has a byte at least; copy the file again, or cut it",
            field=field,
        )


def _entries(container: InputContainer) -> int:
    """Return the number of entries in the index of an MP4 file over all its tracks."""
    return sum(stream.frames for stream in container.streams if not stream.name or not stream.name.startswith("pcm_"))


def _not_opened(path: Path, field: str, problem: BaseException) -> MediaUnsupported:
    number = getattr(problem, "errno", None)
    if number == errno.ENOMEM:
        return MediaUnsupported(f"{path} claims to hold more than fits into memory; copy the file again", field=field)
    if number == errno.EINVAL:
        return MediaUnsupported(
            f"{path} is in a format that is not read here; convert it first (ffmpeg -i IN OUT.mp4)",
            field=field,
        )
    return MediaUnsupported(
        f"{path} is not a media file, or it is cut short: its header cannot be read ({_first_line(problem)}); "
        "play it in a media player to see whether it is whole",
        field=field,
    )


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not a cover picture.

    Raises:
        MediaUnsupported: there is no such stream, or its codec cannot be decoded.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise MediaUnsupported(f"{path} holds a video stream in a codec that cannot be decoded here", field="video")
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise MediaUnsupported(f"{path} has no video stream (it holds: {kinds}); give footage with a picture", field="video")


def broken_at(path: Path, seconds: Fraction | None, problem: str, *, field: str = "video") -> MediaUnsupported:
    """Return the error for a file that breaks off or cannot be decoded, with the time up to which the file could be read."""
    where = "before its first frame" if seconds is None else f"after {float(seconds):.3f} s"
    return MediaUnsupported(
        f"{path} breaks {where}: {problem}; copy the file again, or cut it before that point (ffmpeg -i IN -t SECONDS -c copy OUT)",
        field=field,
    )


def _first_line(problem: BaseException) -> str:
    return (getattr(problem, "strerror", None) or str(problem) or type(problem).__name__).splitlines()[0]


def reason_of(problem: BaseException) -> str:
    """Return FFmpeg's text for a problem, in one line."""
    return _first_line(problem)
