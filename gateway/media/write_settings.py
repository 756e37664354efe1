"""Settings of writing a film."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteSettings:
    """How a film is written.

    Attributes:
        codec: h264, hevc, ffv1 (lossless), prores or mpeg2video; None: container and footage decide (encoders.py).
        keep_audio: copy the footage's own sound. Otherwise new speech replaces the first sound track.
        marking: text at the beginning of the film's comment, before the footage's own comment; empty: none.
        crf: quality of h264 and hevc; lower is better.
        preset: speed of h264 and hevc.
        threads: threads of the encoder. The bytes of the output depend on this number.
        carry: copy the footage's other streams and its chapters.
        overwrite: replace an existing file of any kind. Otherwise only a film that dubstage wrote is replaced.
        takes_over: remove unfinished files of this output that other processes hold. Otherwise such a file is an error.
    """

    codec: str | None = None
    keep_audio: bool = False
    marking: str = ""
    crf: int = 16
    preset: str = "veryfast"
    threads: int = 2
    carry: bool = True
    overwrite: bool = False
    takes_over: bool = False
