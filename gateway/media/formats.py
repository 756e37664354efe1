"""The media formats that are read: formats whose demuxers open no other file.

Playlists (HLS, DASH, concat, SDP, image sequences, ...) name other files or addresses. With such a file, a caller of the API could
read files that the caller may not read.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from gateway.media.boxes import boxes_at_all_levels, read_at

_FILMS: Final = (
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
    "format_whitelist": ",".join((*_FILMS, *_SOUNDS, *_PICTURES)),
    "protocol_whitelist": "file",
}
"""FFmpeg's options for every file that is read. References of MOV files to other files are not followed by FFmpeg's own default;
`external_reference` finds them."""

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
    place = 8
    while place + 12 <= len(dref):
        (length,), (flags,) = struct.unpack_from(">I", dref, place), struct.unpack_from(">I", dref, place + 8)
        if length < 12:
            return False
        if not flags & 1 and length > 13:
            return True
        place += length
    return False
