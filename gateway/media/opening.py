"""Opens media files and decodes their streams, within bounds and with errors that name a remedy.

Bounds of footage and speech are far beyond what is filmed, but too small to fill a disk or a memory.
docs/operations/media.md states the bounds for users.

Only formats are read whose demuxers open no other file. Playlists (HLS, DASH, concat, SDP, image sequences, ...) name other files
or addresses. With such a file, a caller of the API could read files that the caller may not read.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
from av.codec import CodecContext
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from gateway.media.mp4 import EditPart, Only, TrackView, boxes_at_all_levels, edit_parts, edits_of, read_at, track_view
from gateway.safe_paths import descriptor_url, open_media_file
from services.common.errors import MediaUnsupportedError
from services.common.server.resources import give_back_freed_memory

MAX_VIDEO_S: Final = 12 * 3600
"""Longest video and longest speech, seconds."""
MAX_FRAMES: Final = 5_000_000
"""Most frames of a video."""
MAX_SAMPLES: Final = 4 * MAX_FRAMES
"""Most entries in the index of an MP4 file over all its tracks. Tracks of uncompressed sound do not count: FFmpeg keeps no index of
them."""
MAX_FRAME_S: Final = 600
"""Longest time that one frame is shown, seconds: enough for a lecture's slide, too short for a jump in the file's clock."""
MAX_RATE: Final = 1000
"""Highest average frame rate, frames/s."""
MIN_SIDE: Final = 16
MAX_SIDE: Final = 8192
"""Shortest and longest side of a video's picture, pixels."""
MAX_STILL_SIDE: Final = 16384
MAX_STILL_PIXELS: Final = 1 << 27
"""Longest side of a single picture, and most pixels of a single picture."""
MAX_CHANNELS: Final = 16
MIN_SAMPLE_RATE_HZ: Final = 8000
MAX_SAMPLE_RATE_HZ: Final = 192_000
"""Bounds of sound that is used as speech: the bounds of the audio stage."""
PROBE_MEMORY_BYTES: Final = 2 << 30
"""Address space of the process that reads a file from outside, bytes."""
PROBE_BASE_S: Final = 60
PROBE_BYTES_PER_S: Final = 2_000_000
"""Time of this process: PROBE_BASE_S seconds, and one more second per PROBE_BYTES_PER_S bytes of the file."""


_VIDEOS: Final = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "mxf", "flv", "live_flv", "ogg", "asf", "asf_o", "nut", "gxf", "dv",
    "rm", "wtv", "lxf", "nsv", "ivf", "yuv4mpegpipe", "h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "m4v", "vc1", "vc1test",
    "dirac", "dnxhd", "apv", "cavsvideo", "mjpeg", "gif", "apng", "swf", "mlv", "cine", "r3d", "thp", "bink", "smk", "flic", "roq",
)  # fmt: skip
_SOUNDS: Final = (
    "wav", "w64", "flac", "mp3", "aac", "ac3", "eac3", "ac4", "dts", "dtshd", "truehd", "mlp", "aiff", "caf", "au", "amr", "amrnb",
    "amrwb", "ape", "tta", "wv", "tak", "mpc", "mpc8", "oma", "dsf", "iff", "qcp", "voc", "loas", "shn", "gsm", "ircam", "pvf",
    "nistsphere", "sox", "avr", "rso", "osq", "qoa", "bonk", "xwma", "sln",
)  # fmt: skip
_PICTURES: Final = (
    "png_pipe", "jpeg_pipe", "jpegls_pipe", "jpegxl_pipe", "jpegxl_anim", "j2k_pipe", "webp_pipe", "webp", "bmp_pipe", "tiff_pipe",
    "exr_pipe", "hdr_pipe", "dpx_pipe", "gif_pipe", "pam_pipe", "pbm_pipe", "pgm_pipe", "pgmyuv_pipe", "pfm_pipe", "ppm_pipe",
    "psd_pipe", "qoi_pipe", "sgi_pipe", "sunrast_pipe", "pcx_pipe", "xbm_pipe", "xpm_pipe", "xwd_pipe",
)  # fmt: skip

INPUT_OPTIONS: Final = {
    "format_whitelist": ",".join((*_VIDEOS, *_SOUNDS, *_PICTURES)),
    "protocol_whitelist": "file",
}
"""FFmpeg's options for every file that is read. References of MOV files to other files are not followed by FFmpeg's own default;
`external_reference` finds them."""
_WITHOUT_EDITS: Final = {**INPUT_OPTIONS, "ignore_editlist": "1"}

_HEAD_BYTES: Final = 4096
_PLAYLISTS: Final = (
    (b"#EXTM3U", "a playlist (M3U, HLS)"),
    (b"ffconcat", "a list of files (ffconcat)"),
    (b"[playlist]", "a playlist (PLS)"),
    (b"v=0", "a description of streams (SDP)"),
    (b"<?xml", "an XML document (a DASH or SMIL manifest, ...)"),
    (b"<MPD", "a manifest (DASH)"),
    (b"<ASX", "a playlist (ASX)"),
    (b"<smil", "a playlist (SMIL)"),
)
_HOLDS_TRACKS: Final = {b"moov", b"trak", b"mdia", b"minf", b"dinf"}
_LARGE_INDEX: Final = 50_000
"""Number of entries from which on an index is large. Twelve minutes of picture and sound have as many."""
_VIEW_BUFFER: Final = 256 << 10
"""Bytes that FFmpeg reads of a view at once. FFmpeg reads files itself, with its own buffer."""


def playlist_kind(handle: int) -> str | None:
    """Return the kind, in words, of a file that only names other files; None: the file is none of these. Reads the first bytes."""
    head = os.pread(handle, _HEAD_BYTES, 0).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"file ") and b"\0" not in head:
        return "a list of files (ffconcat)"
    return next((words for mark, words in _PLAYLISTS if head.startswith(mark.lower())), None)


def external_reference(handle: int) -> bool:
    """Return whether a track of an MP4 or MOV file has its pictures or sound in another file, which a `dref` entry names."""
    with open(f"/proc/self/fd/{handle}", "rb") as file:
        return any(
            box.kind == b"dref" and _names_a_file(read_at(file, box.body, min(box.end - box.body, _HEAD_BYTES)))
            for box in boxes_at_all_levels(file, _HOLDS_TRACKS)
        )


def _names_a_file(dref: bytes) -> bool:
    """Return whether an entry of a `dref` box is not marked as 'in this file' and has room for a name."""
    offset = 8
    while offset + 12 <= len(dref):
        (length,), (flags,) = struct.unpack_from(">I", dref, offset), struct.unpack_from(">I", dref, offset + 8)
        if length < 12:
            return False
        if not flags & 1 and length > 13:
            return True
        offset += length
    return False


@contextmanager
def open_input(
    path: Path, *, field: str = "video", only: Only | None = None, follow_edits: bool = True
) -> Iterator[InputContainer]:
    """Open a media file for reading. The gateway and the command line open media here only.

    FFmpeg gets the descriptor of the checked file instead of the path. So FFmpeg takes no name for a protocol or a pattern, and the
    file cannot be exchanged between check and use. Formats that open other files are refused.

    Args:
        field: option or field that names the file, for errors.
        only: what the caller reads; None: all. Of long videos the other tracks are hidden, so streams may have other numbers.
        follow_edits: whether FFmpeg follows the edit lists of MP4 and MOV. Otherwise the file has all samples, at their own times.

    Raises:
        MediaUnsupportedError: the file is missing, not regular, unreadable, empty, or in a format that is not read. `field` names
            the option at fault.
    """
    with ExitStack() as stack:
        with open_media_file(path, field=field) as handle:
            view = track_view(handle, only) if only is not None else None
            if view is not None:
                stack.callback(view.close)
            container = _open(handle, path, field, view, INPUT_OPTIONS if follow_edits else _WITHOUT_EDITS)
        stack.callback(container.close)
        yield container


def _open(handle: int, path: Path, field: str, view: TrackView | None, options: dict[str, str]) -> InputContainer:
    playlist = playlist_kind(handle)
    if playlist is not None:
        raise MediaUnsupportedError(f"{path} is {playlist}, which only names media; give the media file itself", field=field)
    try:
        source = descriptor_url(handle) if view is None else view
        container = av.open(source, "r", metadata_errors="replace", container_options=options, buffer_size=_VIEW_BUFFER)
    except (av.FFmpegError, OSError, ValueError) as problem:
        raise _not_opened(path, field, problem) from problem
    if container.format.name.startswith("mov,"):
        try:
            _refuse_external(handle, path, field)
            _refuse_edits(handle, path, field)
            _refuse_claims(container, os.fstat(handle).st_size, path, field)
        except MediaUnsupportedError:
            container.close()
            raise
        if _entries(container) > _LARGE_INDEX:
            # Reading the index of two hours takes 52 MB of memory, of which FFmpeg has freed 32 MB by now.
            give_back_freed_memory()
    return container


def parts_of(container: InputContainer, stream: Stream, path: Path, *, field: str = "video") -> tuple[EditPart, ...]:
    """Return the parts of a stream that are to be followed exactly (gateway.media.mp4.edit_parts); empty: FFmpeg follows the list.

    Raises:
        MediaUnsupportedError: the file cannot be opened any more.
    """
    if not container.format.name.startswith("mov,"):
        return ()
    with open_media_file(path, field=field) as handle:
        return edit_parts(handle).get(stream.id, ())


def _refuse_external(handle: int, path: Path, field: str) -> None:
    if external_reference(handle):
        raise MediaUnsupportedError(
            f"{path} has its picture or sound in another file, which it only names; "
            "save it as one self-contained file (ffmpeg -i IN -c copy OUT.mov)",
            field=field,
        )


def _refuse_edits(handle: int, path: Path, field: str) -> None:
    """Refuse edit lists that FFmpeg does not follow: gaps behind a shown part, and speeds. Players show other frames or times."""
    for edit in edits_of(handle):
        name = {b"vide": "picture", b"soun": "sound"}.get(edit.track)
        wrong = ""
        if edit.is_empty and edit.number:
            wrong = "has a gap"
        elif not edit.is_empty and edit.speed != 1:
            wrong = f"has a part at {edit.speed:g} times the speed" if edit.speed else "stands still in a part"
        if name and wrong:
            raise MediaUnsupportedError(
                f"{path}: by its edit list, the {name} {wrong}, which is not read here; export the clip anew in an editing program",
                field=field,
            )


def _refuse_claims(container: InputContainer, file_bytes: int, path: Path, field: str) -> None:
    """Refuse an index that the file cannot hold. FFmpeg takes 24 bytes of memory per entry of the index, each time the file is
    opened.
    """
    claimed = [stream.frames for stream in container.streams]
    if max(claimed, default=0) > file_bytes or _entries(container) > MAX_SAMPLES:
        raise MediaUnsupportedError(
            f"{path} claims {sum(claimed)} frames and pieces of sound in {file_bytes} bytes; at most {MAX_SAMPLES} are "
            "read, and each has a byte at least; copy the file again, or cut it",
            field=field,
        )


def _entries(container: InputContainer) -> int:
    """Return the number of entries in the index of an MP4 file over all its tracks."""
    return sum(stream.frames for stream in container.streams if not (codec_name(stream) or "").startswith("pcm_"))


def codec_name(stream: Stream) -> str | None:
    """Return FFmpeg's name of a stream's codec; None: FFmpeg does not know the codec."""
    # PyAV has no attribute `name` on pictures, sound and subtitles in a codec that FFmpeg does not know.
    return getattr(stream, "name", None)


def is_decodable(stream: Stream) -> bool:
    """Return whether FFmpeg has a decoder for a stream of pictures or sound."""
    # The stub says that every stream has a context.
    return cast("CodecContext | None", stream.codec_context) is not None


def _not_opened(path: Path, field: str, problem: BaseException) -> MediaUnsupportedError:
    number = getattr(problem, "errno", None)
    if number == errno.ENOMEM:
        return MediaUnsupportedError(f"{path} claims to hold more than fits into memory; copy the file again", field=field)
    if number == errno.EINVAL:
        return MediaUnsupportedError(
            f"{path} is in a format that is not read here; convert it first (ffmpeg -i IN OUT.mp4)",
            field=field,
        )
    return MediaUnsupportedError(
        f"{path} is not a media file, or it is cut short: its header cannot be read ({_first_line(problem)}); "
        "play it in a media player to see whether it is whole",
        field=field,
    )


def is_cover(stream: Stream) -> bool:
    """Return whether a stream is a cover picture."""
    return bool(stream.disposition & Disposition.attached_pic)


def _is_still_of_heif(container: InputContainer, stream: VideoStream) -> bool:
    return container.format.name.startswith("mov,") and stream.frames == 1 and stream.duration is None


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that players show: the first default stream, otherwise the first stream. Cover pictures, and streams
    that cannot be decoded, do not count.

    Raises:
        MediaUnsupportedError: there is no such stream.
    """
    pictures = [stream for stream in container.streams.video if not is_cover(stream)]
    decodable = [stream for stream in pictures if is_decodable(stream)]
    # An animation of HEIF also has a still, which FFmpeg gives as a stream without a length.
    decodable = [stream for stream in decodable if not _is_still_of_heif(container, stream)] or decodable
    if decodable:
        return next((stream for stream in decodable if stream.disposition & Disposition.default), decodable[0])
    if pictures:
        is_picture = container.format.name.endswith(("_pipe", "jpegxl_anim"))
        wanted = "save it as PNG or JPEG" if is_picture else "convert it to H.264 or ProRes"
        raise MediaUnsupportedError(
            f"{path} holds its picture in a codec that cannot be decoded here; {wanted} in the program that wrote it",
            field="video",
        )
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise MediaUnsupportedError(f"{path} has no video stream (it holds: {kinds}); give footage with a picture", field="video")


def broken_at(path: Path, seconds: Fraction | None, problem: str, *, field: str = "video") -> MediaUnsupportedError:
    """Return the error for a file that breaks off or cannot be decoded, with the time up to which the file could be read."""
    where = "before its first frame" if seconds is None else f"after {float(seconds):.3f} s"
    return MediaUnsupportedError(
        f"{path} breaks {where}: {problem}; copy the file again, or cut it before that point (ffmpeg -i IN -t SECONDS -c copy OUT)",
        field=field,
    )


def _first_line(problem: BaseException) -> str:
    return (getattr(problem, "strerror", None) or str(problem) or type(problem).__name__).splitlines()[0]


def reason_of(problem: BaseException) -> str:
    """Return FFmpeg's text for a problem, in one line."""
    return _first_line(problem)


@dataclass(slots=True)
class DecodingProgress:
    """Progress of decoding a stream.

    Attributes:
        seconds: time up to which there are frames; None: there is no frame yet.
    """

    seconds: Fraction | None = None


def decoded_frames(
    container: InputContainer, stream: Stream, path: Path, reached: DecodingProgress, *, field: str = "video"
) -> Iterator[Any]:
    """Yield the decoded frames of a stream.

    A recording may start in the middle of a stream: packets that cannot be decoded are skipped until the first frame comes.

    Args:
        container: the open file.
        stream: the stream, a video stream or an audio stream.
        path: path of the file, for errors.
        reached: how far the stream was decoded. The caller sets the time after each frame.
        field: option that names the file, for errors.

    Raises:
        MediaUnsupportedError: the file breaks off or cannot be decoded.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        # A read that the disk refuses is an OSError of the view (mp4.py), and an FFmpegError elsewhere.
        except (av.FFmpegError, OSError) as problem:
            if reached.seconds is None and isinstance(problem, av.InvalidDataError):
                continue
            raise broken_at(path, reached.seconds, reason_of(problem), field=field) from problem
        yield from frames
