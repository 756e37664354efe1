"""Choice of the encoder of an output: by the container, the footage's codec, pixel format and size, and the user's wish.

| container  | default                                              | also                     | frame times             |
|------------|------------------------------------------------------|--------------------------|-------------------------|
| .mp4 .m4v  | h264 (hevc, then ffv1 for pictures that h264 lacks)  | hevc, ffv1, av1          | every one exact         |
| .mov       | the footage's ProRes or DNxHR, otherwise as .mp4     | hevc, prores, dnxhr      | every one exact         |
| .mkv       | h264                                                 | hevc, ffv1, prores, av1  | in milliseconds (see below) |
| .nut       | ffv1                                                 | h264, hevc               | every one exact         |
| .mxf       | the footage's DNxHR; mpeg2video (8 bits), prores (10 bits) | h264, dnxhr        | constant rates only     |

Pictures in 4:2:0 of more than 8 bits become av1 if the footage is AV1, otherwise hevc, in .mp4, .m4v, .mov and .mkv: phones and
browsers play HEVC Main 10, and refuse H.264 High 10.

Matroska takes constant rates, which readers recover, and footage that is itself timed in milliseconds. Depth and chroma of samples
never change: an encoder that lacks the footage's format is refused, and so is one that lacks its size (h264 and hevc take no odd
sizes in 4:2:0). There is one exception. ProRes 4444 is decoded to 12 bits per sample, alpha included; its encoder takes 10 bits.
Samples are rounded to 10 bits if the user asks for ProRes, or if no other codec of the container keeps 12 bits (.mov with alpha,
.mxf).

A video must look like its footage in every player. So a codec is not taken in a container where the two cannot say the footage's
rotation, pixel aspect, fields, range or matrix (docs/formats.md).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.media.choices import CODECS, ENCODERS, QUALITIES
from gateway.media.label import Label
from gateway.media.pixels import ColourTags, completed, effective_matrix
from gateway.media.types import HdrMetadata, VideoInfo
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.server.resources import cpu_flags

_GRADED: Final = ("h264", "hevc", "av1")
"""Codecs whose quality a user chooses."""
_LARGEST_CRF: Final = 51
_SMALLEST_DNXHR: Final = (256, 120)
"""Least width and height of DNxHR, pixels."""
_SMALLEST_AV1: Final = 64
"""Least width and height that SVT-AV1 takes, pixels."""
_AV1_CRF: Final = 1.5
"""Factor from the crf of H.264 (0 to 51) to that of SVT-AV1 (0 to 63) of the same quality."""
_AV1_PRESET: Final = "8"
_LARGE_PIXELS: Final = 2560 * 1600
"""Most pixels of a frame that x264 encodes with _X264."""
_X264_PRESET: Final = "superfast"
_X264: Final = ("mbtree=1", "rc-lookahead=10", "subme=2")
"""Parameters beside the preset. At the same crf, x264 takes .61 to .79 of the processor time of the preset `veryfast`. Five clips
of 640 x 360 to 1920 x 1080 have 2 % less size to 3 % more, and .2 dB less to .1 dB more PSNR; a dub of 24 s has 5 % more size."""
_LARGE_X264: Final = ("mbtree=1", "rc-lookahead=5")
"""Parameters for larger frames. At 3840 x 2160 and the same crf, they take .57 to .70 of veryfast's processor time and 80 MB less
memory. Noisy footage has the same size and .2 dB less PSNR. Clean footage has 10 % less size and 50.5 in place of 52.7 dB, as
1920 x 1080 has with veryfast."""
_HEVC_PRESET: Final = "superfast"
"""In three quarters of veryfast's time, with the same PSNR and smaller files (10 bits, 720p)."""
_WITHOUT_ROTATION: Final = (".mxf", ".nut")
"""Containers that hold no rotation."""
_WITHOUT_ASPECT: Final = {"ffv1": (".mkv", ".nut"), "prores": (".mkv",), "av1": (".mkv",), "dnxhr": (".mxf",)}
"""Containers that get no pixel aspect, by codec: the codec has none, and PyAV gives the container none."""
_WITHOUT_FIELDS: Final = ("hevc", "av1", "dnxhr")
"""Codecs of progressive frames only. x265 has fields, which FFmpeg does not give to the encoder."""
_MPEG2_ASPECTS: Final = (Fraction(4, 3), Fraction(16, 9), Fraction(221, 100))
"""Aspects of the whole picture that MPEG-2 names, beside square pixels."""
_PRORES_MATRIX: Final = {5: 6}
"""Matrix of BT.601 that ProRes names, by the equal one that it does not name (ITU-T H.273, table 4)."""
_PRORES_TRANSFER: Final = {6: 1, 14: 1, 15: 1}
"""Transfer characteristics that ProRes names, by equal ones that it does not name (ITU-T H.273, table 3)."""
_MPEG2_RATES: Final = {
    Fraction(n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1))
}


def crf_of(quality: str, codec: str | None = None) -> int | None:
    """Return the crf that a text names, one of QUALITIES or a whole number; None: the text is empty.

    Args:
        codec: codec that the user asks for; None: container and footage decide, and `check_graded` checks later.

    Raises:
        InvalidRequestError: the text names no quality, or the codec has one quality only.
    """
    if not quality:
        return None
    crf = QUALITIES.get(quality, int(quality) if quality.isascii() and quality.isdigit() else -1)
    if not 0 <= crf <= _LARGEST_CRF:
        raise InvalidRequestError(
            f"the quality {quality[:40]!r} of the pictures is unknown: give {', '.join(QUALITIES)}, or a number from 0 (best) to "
            f"{_LARGEST_CRF}",
            field="encode_quality",
        )
    if codec is not None:
        check_graded(codec)
    return crf


def check_graded(codec: str) -> None:
    """Raise InvalidRequestError if a codec has one quality only."""
    if codec not in _GRADED:
        raise InvalidRequestError(
            f"{codec} has one quality: give no quality of the pictures, or choose the codec {', '.join(_GRADED)}",
            field="encode_quality",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteSettings:
    """Settings of writing a video.

    Attributes:
        codec: h264, hevc, ffv1 (lossless), prores, mpeg2video, dnxhr or av1; None: container and footage decide (encoders.py).
        keep_audio: keep the footage's own sound. Otherwise new speech, if there is any, replaces the first sound track.
        marking: text at the beginning of the video's comment, before the footage's own comment; empty: none.
        source_type: digital source type, which all containers but MP4 and MOV take as a tag; empty: that of the footage stays.
        label: visible label of every frame; None: there is none.
        crf: quality of h264, hevc and av1, on the scale of h264; lower is better.
        threads: threads of the encoder. The bytes of the output depend on this number.
        carry: copy the footage's other streams and its chapters.
        overwrite: replace an existing file of any kind. Otherwise only a video that dubstage wrote is replaced.
        takes_over: remove unfinished files of this output that other processes hold. Otherwise such a file is an error.
    """

    codec: str | None = None
    keep_audio: bool = False
    marking: str = ""
    source_type: str = ""
    label: Label | None = None
    crf: int = QUALITIES["high"]
    threads: int = 2
    carry: bool = True
    overwrite: bool = False
    takes_over: bool = False


@dataclass(frozen=True, slots=True)
class _Container:
    format: str
    video: tuple[str, ...]
    sound: str
    lossless_sound: str


_CONTAINERS: Final = {
    ".mp4": _Container("mp4", ("h264", "hevc", "ffv1", "av1"), "aac", "flac"),
    ".m4v": _Container("mp4", ("h264", "hevc", "ffv1", "av1"), "aac", "flac"),
    ".mov": _Container("mov", ("h264", "hevc", "prores", "dnxhr"), "aac", "pcm_s24le"),
    ".mkv": _Container("matroska", ("h264", "hevc", "ffv1", "prores", "av1"), "aac", "flac"),
    ".nut": _Container("nut", ("ffv1", "h264", "hevc"), "pcm_s16le", "pcm_s16le"),
    ".mxf": _Container("mxf", ("mpeg2video", "prores", "h264", "dnxhr"), "pcm_s16le", "pcm_s24le"),
}


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """Encoder and container of a video.

    Attributes:
        codec: one of CODECS.
        encoder: FFmpeg's name of the encoder.
        container: FFmpeg's name of the muxer.
        pixel_format: pixel format that the encoder gets: the footage's own. Full-range yuvj formats have their modern name, with
            the range tag.
        options: private options of the encoder.
        time_base: time base of frame times for the muxer.
        encoder_time_base: time base of the encoder: the time of one frame if all frames have the same, otherwise `time_base`. H.264
            and HEVC write the time base into the video as the frame rate.
        frame_numbers: whether times are frame numbers at a constant rate (MXF), instead of the footage's ticks from the first
            frame.
        sound_codec: FFmpeg's name of the encoder of new speech.
    """

    codec: str
    encoder: str
    container: str
    pixel_format: str
    options: dict[str, str]
    time_base: Fraction
    encoder_time_base: Fraction
    frame_numbers: bool
    sound_codec: str

    @property
    def has_segments(self) -> bool:
        """Whether parts of a video, encoded one by one, are one stream of this codec in this container."""
        return self.codec in ("h264", "hevc") and self.container in ("mp4", "mov")


def container_format(output: Path) -> str:
    """Return FFmpeg's name of the muxer for the ending of `output`.

    Raises:
        InvalidRequestError: there is no muxer for this ending.
    """
    return _container(output).format


def check_target(output: Path, codec: str | None) -> None:
    """Check output and codec as far as that is possible without footage.

    Raises:
        InvalidRequestError: the ending or the codec is unknown, or the container never holds the codec.
    """
    container = _container(output)
    if codec is None:
        return
    if codec not in ENCODERS:
        raise InvalidRequestError(f"unknown codec {codec[:40]}; choose one of {', '.join(CODECS)}", field="codec")
    if codec not in container.video:
        raise InvalidRequestError(
            f"{output.suffix.lower()} does not hold {codec}; choose one of {', '.join(container.video)}, or another ending "
            f"({_endings_for(codec)})",
            field="codec",
        )


def _container(output: Path) -> _Container:
    container = _CONTAINERS.get(output.suffix.lower())
    if container is None:
        names = " ".join(_CONTAINERS)
        raise InvalidRequestError(f"{output}: videos are written as {names}; give the output one of these endings", field="output")
    return container


def _endings_for(codec: str) -> str:
    return " ".join(suffix for suffix, container in _CONTAINERS.items() if codec in container.video)


def choose_encoder(output: Path, video: VideoInfo, codec: str | None, crf: int) -> EncoderChoice:
    """Return encoder and muxer for an output.

    Args:
        video: picture of the footage.
        codec: codec that the user asks for; None: the default of the table above.
        crf: quality of h264, hevc and av1, on the scale of h264; lower is better.

    Raises:
        InvalidRequestError: there is no such container or codec, or the container does not hold the codec.
        MediaUnsupportedError: the container cannot keep the footage's frame times, the codec cannot keep its samples or its size,
            or the two cannot say how its picture is shown.
    """
    check_target(output, codec)
    suffix, container = output.suffix.lower(), _container(output)
    _check_times(output, suffix, video)
    _check_decoded(video)
    chosen = codec or _default(container, suffix, video, video.pixel.name.replace("yuvj", "yuv"))
    pixel_format = None if chosen is None else _format_for(chosen, video)
    if chosen is None or pixel_format is None:
        raise MediaUnsupportedError(f"{output}: {_nothing_keeps(codec, suffix, video)}", field="codec")
    if lost := _lost(chosen, suffix, video):
        raise MediaUnsupportedError(f"{output}: {chosen} in {suffix} cannot say {lost}; {_that_can_say(video)}", field="codec")
    rate = video.constant_rate
    if chosen == "mpeg2video" and rate not in _MPEG2_RATES:
        raise MediaUnsupportedError(f"mpeg2video cannot run at {rate} frames a second; write .mp4 or .mov", field="output")
    frame_numbers = suffix == ".mxf"
    time_base = 1 / rate if frame_numbers and rate is not None else video.time_base
    return EncoderChoice(
        codec=chosen,
        encoder=ENCODERS[chosen],
        container=container.format,
        pixel_format=pixel_format,
        options=encoder_options(
            chosen,
            pixel_format,
            crf,
            whole_cells=_has_whole_cells(video),
            large=_is_large(video),
            hdr=video.hdr,
            # Readers of MXF take pictures in the order in which they are coded for the order in which they are shown.
            reorders=suffix != ".mxf",
        ),
        time_base=time_base,
        encoder_time_base=time_base if frame_numbers else time_base * _ticks_of_a_frame(video),
        frame_numbers=frame_numbers,
        sound_codec=container.lossless_sound if chosen in ("ffv1", "prores", "dnxhr") else container.sound,
    )


def _ticks_of_a_frame(video: VideoInfo) -> int:
    """Return the ticks from frame to frame, if all times of the footage are whole numbers of them; otherwise 1."""
    ticks = video.last_duration
    return ticks if np.all(np.diff(video.pts) == ticks) else 1


def _check_times(output: Path, suffix: str, video: VideoInfo) -> None:
    constant = video.constant_rate is not None
    if suffix == ".mxf" and not constant:
        raise MediaUnsupportedError(
            f"{output}: MXF holds constant frame rates only, and this footage's varies; write .mp4 or .mov",
            field="output",
        )
    if suffix == ".mkv" and not constant:
        milliseconds = video.time_base * 1000
        if any((int(pts) * milliseconds).denominator != 1 for pts in video.pts - video.pts[0]):
            raise MediaUnsupportedError(
                f"{output}: Matroska rounds times to milliseconds: this footage's variable times would be lost; "
                "write .mp4, .mov or .nut",
                field="output",
            )


def _default(container: _Container, suffix: str, video: VideoInfo, pixel_format: str) -> str | None:
    def keeping(codecs: Iterable[str]) -> str | None:
        holding = [codec for codec in codecs if _holds(codec, pixel_format) and _holds_size(codec, video)]
        # The first codec of NUT is lossless. No other is a replacement.
        saying = [codec for codec in holding if not _lost(codec, suffix, video)] if suffix != ".nut" else []
        return next(iter((*saying, *holding)), None)

    preferred = [codec for codec in _preferred(video, suffix) if codec in container.video]
    keeps = keeping((*preferred, *container.video))
    if keeps is None and "prores" in container.video and video.codec == "prores" and _format_for("prores", video) is not None:
        return "prores"
    return keeps


def _lost(codec: str, suffix: str, video: VideoInfo) -> str:
    """Return what a codec in a container cannot say of the footage's picture, in words; empty: the two can say all."""
    turns, mirrored, aspect = video.orientation.quarter_turns, video.orientation.mirrored, video.orientation.sample_aspect
    if suffix in _WITHOUT_ROTATION and (turns or mirrored):
        how = [*([f"turned by {90 * turns} degrees"] if turns else []), *(["mirrored"] if mirrored else [])]
        return f"that the picture is {' and '.join(how)}"
    if aspect != 1 and (suffix in _WITHOUT_ASPECT.get(codec, ()) or (codec == "mpeg2video" and not _has_mpeg2_aspect(video))):
        return f"the pixel aspect {aspect.numerator}:{aspect.denominator}"
    if video.interlaced and codec in _WITHOUT_FIELDS:
        return "that the frames are interlaced"
    return _lost_colour(codec, suffix, video) if video.pixel.kind == "yuv" else ""


def _lost_colour(codec: str, suffix: str, video: VideoInfo) -> str:
    tags, size = video.colour, (video.width, video.height)
    if codec in ("prores", "mpeg2video") and video.colour_model.full_range:
        return "that the samples have the full range"
    if codec == "dnxhr" and effective_matrix(tags, *size) != 1:
        return "that the matrix of the colours is not BT.709"
    if (codec, suffix) == ("ffv1", ".nut") and completed(tags, *size) != completed(ColourTags(), *size):
        return "the colour tags"
    return ""


def _has_mpeg2_aspect(video: VideoInfo) -> bool:
    return video.orientation.sample_aspect * Fraction(video.width, video.height) in _MPEG2_ASPECTS


def _that_can_say(video: VideoInfo) -> str:
    """Return which codecs in which containers keep the footage's samples and can say all of its picture."""
    choices = []
    for codec in CODECS:
        if _format_for(codec, video) is not None:
            endings = [end for end, item in _CONTAINERS.items() if codec in item.video and not _lost(codec, end, video)]
            choices += [f"{codec} in {' '.join(endings)}"] if endings else []
    return f"these can: {'; '.join(choices)}" if choices else "no other can: convert the footage first"


def colour_for(choice: EncoderChoice, video: VideoInfo) -> ColourTags:
    """Return the colour tags that an encoder gets: the footage's tags, or tags of equal functions."""
    tags = video.colour
    if choice.codec == "prores":
        matrix, transfer = _PRORES_MATRIX.get(tags.matrix, tags.matrix), _PRORES_TRANSFER.get(tags.transfer, tags.transfer)
        return replace(tags, matrix=matrix, transfer=transfer)
    if choice.codec == "ffv1" and choice.container == "mp4" and tags != ColourTags():
        # FFV1 has no tags of its own, and MP4 stores all of them or none.
        return completed(tags, video.width, video.height)
    if video.pixel.kind == "grey" and choice.codec != "ffv1":
        # Players take grey for full range. Decoders give the grey of these codecs as 4:2:0, which players take for limited range.
        return replace(tags, color_range=2)
    return tags


def _preferred(video: VideoInfo, suffix: str) -> tuple[str, ...]:
    """Return the codecs that are better for this footage than the container's first codec, the best first."""
    if suffix in (".mov", ".mxf") and video.codec == "dnxhd":
        return ("dnxhr", "prores")
    if suffix == ".mov" and video.codec == "prores":
        return ("prores",)
    deep = video.pixel.bits > 8 and video.pixel.chroma_step == (2, 2)
    if not deep or suffix not in (".mp4", ".m4v", ".mov", ".mkv"):
        return ()
    return ("av1", "hevc") if video.codec == "av1" else ("hevc",)


def _format_for(codec: str, video: VideoInfo) -> str | None:
    """Return the pixel format in which a codec gets the footage: the footage's own, or 10 bits for the 12 bits of ProRes; None: the
    codec has no such format, or not in this size.
    """
    if not _holds_size(codec, video):
        return None
    name = video.pixel.name
    plain = name.replace("yuvj", "yuv")
    candidates = [name, plain, *([plain.replace("12le", "10le")] if codec == "prores" and video.codec == "prores" else [])]
    return next((candidate for candidate in candidates if _holds(codec, candidate)), None)


def _nothing_keeps(codec: str | None, suffix: str, video: VideoInfo) -> str:
    """Return the text of an error that says which codecs keep the footage's size and pixel format."""
    named = f"{codec} does not keep" if codec is not None else f"no codec of {suffix} keeps"
    facts = "a GIF" if video.codec == "gif" else "with transparency" if video.pixel.alpha else ""
    samples = f"{video.pixel.name} ({facts})" if facts else video.pixel.name
    problem = f"{named} the footage's {video.width} x {video.height} samples of {samples}"
    keeping = [item for item in CODECS if _format_for(item, video) is not None]
    there = "; ".join(f"{item} in {_endings_for(item)}" for item in keeping)
    opaque = "to a video" if video.codec == "gif" else "without its transparency"
    without = f"convert the footage {opaque} first ({_opaque(video)})" if video.pixel.alpha else ""
    if there:
        return f"{problem}; these do: {there}{f'; or {without}' if without else ''}"
    deeper = "gbrap10le" if video.pixel.alpha and video.pixel.kind == "rgb" else "yuv444p16le"
    lossless = f"(ffmpeg -i IN -c:v ffv1 -pix_fmt {deeper} -c:a copy OUT.mkv), and write an .mkv"
    how = f"{without}, or without loss" if without else "convert the footage without loss first"
    return f"{problem}, and no other does; {how} {lossless}"


def _opaque(video: VideoInfo) -> str:
    """Return the command that converts footage with transparency to a video that every container holds."""
    width, height = video.width // 2 * 2, video.height // 2 * 2
    even = "" if (width, height) == (video.width, video.height) else f" -vf crop={width}:{height}:0:0"
    return f"ffmpeg -i IN{even} -c:v libx264 -crf 12 -pix_fmt yuv420p -c:a copy OUT.mkv"


def _check_decoded(video: VideoInfo) -> None:
    """Raise MediaUnsupportedError if the decoder leaves out the footage's transparency: VP8 and VP9 hold it beside the picture."""
    decoder = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(video.codec)
    if decoder is not None and video.metadata.get("alpha_mode") == "1":
        keeping = f"ffmpeg -c:v {decoder} -i IN -c:v ffv1 -pix_fmt yuva420p -c:a copy OUT.mkv"
        raise MediaUnsupportedError(
            f"the footage has transparency beside its {video.codec} picture, which a dub would lose; convert the footage without "
            f"its transparency first ({_opaque(video)}), or with it ({keeping})",
            field="footage",
        )


def _holds(codec: str, pixel_format: str) -> bool:
    if codec == "hevc" and pixel_format.startswith("yuva"):
        return False  # FFmpeg lists the format whether x265 was built with it or not
    formats = av.Codec(ENCODERS[codec], "w").video_formats or []
    return pixel_format in {item.name for item in formats}


def _holds_size(codec: str, video: VideoInfo) -> bool:
    if codec == "prores":
        return video.width % 2 == 0
    if codec == "dnxhr":
        width, height = _SMALLEST_DNXHR
        return video.width % 2 == 0 and video.width >= width and video.height >= height
    if codec == "av1":
        return _has_whole_cells(video) and min(video.width, video.height) >= _SMALLEST_AV1
    if codec not in ("h264", "hevc"):
        return True
    # x264 takes each field of an interlaced frame as a picture.
    fields = 2 if video.interlaced and codec == "h264" else 1
    return _has_whole_cells(video, fields)


def _is_large(video: VideoInfo) -> bool:
    return video.width * video.height > _LARGE_PIXELS


def _has_whole_cells(video: VideoInfo, fields: int = 1) -> bool:
    """Return whether every chroma sample has all of its luma samples, in each of the fields of a frame."""
    step_x, step_y = video.pixel.chroma_step
    return video.width % step_x == 0 and video.height % (step_y * fields) == 0


def encoder_options(
    codec: str,
    pixel_format: str,
    crf: int,
    *,
    whole_cells: bool = True,
    large: bool = False,
    hdr: HdrMetadata = HdrMetadata(),
    reorders: bool = True,
) -> dict[str, str]:
    """Return the private options of an encoder. With these, equal frames give equal bytes on one kind of processor.

    Args:
        codec: one of CODECS.
        pixel_format: FFmpeg's name.
        crf: quality of h264, hevc and av1, on the scale of h264.
        whole_cells: whether every chroma sample has all of its luma samples.
        large: whether frames have more than _LARGE_PIXELS.
        hdr: HDR metadata, which h264, hevc and av1 keep.
        reorders: whether h264 may code pictures in another order than they are shown in.
    """
    deep, full = "10" in pixel_format, "444" in pixel_format or pixel_format.startswith("gbr")
    order = () if reorders else ("bframes=0",)
    x264 = _x264_parameters((*(_LARGE_X264 if large else _X264), *order, *_hdr_parameters(hdr, "mastering-display", "cll")))
    x265 = ("log-level=error", "frame-threads=1", *_hdr_parameters(hdr, "master-display", "max-cll"))
    svt = _hdr_parameters(hdr, "mastering-display", "content-light", whole=False)
    options = {
        "h264": {"preset": _X264_PRESET, "crf": str(crf), **x264},
        # x265 gets one frame thread: with several, x265 is deterministic only on equal machines.
        "hevc": {"preset": _HEVC_PRESET, "crf": str(crf), "x265-params": ":".join(x265)},
        # FFmpeg divides not every odd size into four slices. It chooses a number that fits if it is given none.
        "ffv1": {"level": "3", **({"slices": "4"} if whole_cells else {}), "slicecrc": "1", "g": "1"},
        # The profile is 4444 or 422 HQ. The encoder `prores` gives the picture of `prores_ks` in a fifth of its time.
        "prores": {"profile": "4" if "444" in pixel_format else "3", "vendor": "apl0"},
        "mpeg2video": {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000", "qmin": "1"},
        "dnxhr": {"profile": "dnxhr_444" if full else "dnxhr_hqx" if deep else "dnxhr_hq"},
        "av1": {
            "preset": _AV1_PRESET,
            "crf": str(min(63, round(_AV1_CRF * crf))),
            **({"svtav1-params": ":".join(svt)} if svt else {}),
        },
    }
    return options[codec]


def _hdr_parameters(hdr: HdrMetadata, display: str, light: str, *, whole: bool = True) -> tuple[str, ...]:
    """Return the parameters of an encoder that state HDR metadata.

    Args:
        display, light: names of the parameters.
        whole: whether the encoder takes the numbers in units of 1/50000 and 1/10000 cd/m2, otherwise of 1 and 1 cd/m2.
    """
    parameters = []
    if hdr.mastering is not None:
        units = (1,) * 10 if whole else (*(50_000,) * 8, *(10_000,) * 2)
        red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y, least, most = (
            f"{value / unit:.9g}" if unit > 1 else str(value) for value, unit in zip(hdr.mastering, units, strict=True)
        )
        parameters.append(
            f"{display}=G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})WP({white_x},{white_y})L({most},{least})"
        )
    if hdr.light is not None:
        parameters.append(f"{light}={hdr.light[0]},{hdr.light[1]}")
    return tuple(parameters)


def _x264_parameters(parameters: tuple[str, ...]) -> dict[str, str]:
    """Return the option with the parameters of x264, and with the parameter by which x264 uses AVX2 in place of AVX-512.

    With AVX-512, and several encoders in one process, x264 sometimes gives other bytes; with AVX2 it never does. That parameter is
    given only if the processor has both, because x264 does not check the flag.
    """
    wanted = (*parameters, *(("asm=avx2",) if {"avx512f", "avx2"} <= cpu_flags() else ()))
    return {"x264-params": ":".join(wanted)} if wanted else {}


@contextmanager
def usual_priority() -> Iterator[None]:
    """Keep the priority of the process while the block opens an encoder.

    If root runs SVT-AV1, the library gives the calling thread and its own threads the highest real-time priority. Other programs
    would wait for the encoder, and programs that the process starts later would inherit the priority.
    """
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getscheduler(0)
    try:
        yield
    finally:
        if before == os.SCHED_OTHER:
            for thread in os.listdir("/proc/self/task"):
                with suppress(OSError):  # the thread has ended
                    if os.sched_getscheduler(int(thread)) != before:
                        os.sched_setscheduler(int(thread), before, os.sched_param(0))
