"""Carries descriptions of media files between processes: JSON, followed by the frame times as plain int64.

Pickle is not used, because what a damaged decoder writes must not become code here.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gateway.media.pixels import ColourTags, pixel_format, planar_name
from gateway.media.sound import SoundInfo
from gateway.media.types import AudioInfo, HdrMetadata, MediaInfo, Orientation, OtherStream, VideoInfo


def pack(facts: dict[str, Any], tail: bytes = b"") -> bytes:
    """Return one line of JSON followed by bytes."""
    line = json.dumps(facts).encode("ascii")
    # Blanks put the bytes at a multiple of eight, so that NumPy reads integers from a view of the answer as fast as from an array.
    return line + b" " * (-(len(line) + 1) % 8) + b"\n" + tail


def unpack(answer: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON of an answer, and a view of the bytes behind it.

    Raises:
        ValueError: the bytes are no answer, or are cut short.
    """
    end = answer.find(b"\n")
    if end < 0 or not isinstance(facts := json.loads(answer[:end]), dict):
        raise ValueError("the answer is cut short")
    return facts, memoryview(answer)[end + 1 :]


def pack_media(info: MediaInfo) -> bytes:
    """Return everything of a MediaInfo except the path."""
    video = info.video
    facts = {
        "container": info.container,
        "metadata": dict(info.metadata),
        "video": {
            "index": video.index,
            "codec": video.codec,
            "stored_format": video.stored_format,
            "orientation": [
                video.orientation.width,
                video.orientation.height,
                video.orientation.quarter_turns,
                video.orientation.mirrored,
                _pair(video.orientation.sample_aspect),
                video.orientation.display_matrix,
            ],
            "colour": [video.colour.matrix, video.colour.color_range, video.colour.primaries, video.colour.transfer],
            "time_base": _pair(video.time_base),
            "average_rate": _pair(video.average_rate),
            "frames": video.num_frames,
            "last_duration": video.last_duration,
            "field_order": video.field_order,
            "metadata": dict(video.metadata),
            "hdr": [video.hdr.mastering, video.hdr.light],
            "unkept": video.unkept,
            "counted": video.counted,
        },
        "audio": [
            [item.index, item.codec, item.sample_rate_hz, item.channels, item.layout, _pair(item.start), dict(item.metadata)]
            for item in info.audio
        ],
        "others": [[item.index, item.kind, item.codec, dict(item.metadata)] for item in info.others],
    }
    return pack(facts, np.concatenate([video.pts, video.sources]).astype("<i8").tobytes())


def media_from(facts: dict[str, Any], tail: bytes | memoryview, path: Path) -> MediaInfo:
    """Return the MediaInfo of the file `path` that `pack_media` packed."""
    video = facts["video"]
    width, height, turns, mirrored, aspect, matrix = video["orientation"]
    # The times of a long video are megabytes, and the answer is kept: the times are a view of the answer.
    times = np.frombuffer(tail, "<i8").astype(np.int64, copy=False)
    times.setflags(write=False)
    return MediaInfo(
        path,
        facts["container"],
        VideoInfo(
            index=video["index"],
            codec=video["codec"],
            stored_format=video["stored_format"],
            pixel=pixel_format(planar_name(video["stored_format"])),
            orientation=Orientation(
                width, height, turns, mirrored, Fraction(*aspect), None if matrix is None else tuple(map(int, matrix))
            ),
            colour=ColourTags(*video["colour"]),
            time_base=Fraction(*video["time_base"]),
            average_rate=Fraction(*video["average_rate"]),
            pts=times[: video["frames"]],
            last_duration=video["last_duration"],
            field_order=video["field_order"],
            metadata=video["metadata"],
            hdr=HdrMetadata(*(None if numbers is None else tuple(map(int, numbers)) for numbers in video["hdr"])),
            unkept=tuple(video["unkept"]),
            sources=times[video["frames"] :],
            counted=video["counted"],
        ),
        tuple(
            AudioInfo(index, codec, rate, channels, layout, Fraction(*start), tags)
            for index, codec, rate, channels, layout, start, tags in facts["audio"]
        ),
        tuple(OtherStream(*item) for item in facts["others"]),
        facts["metadata"],
    )


def pack_sound(info: SoundInfo) -> bytes:
    """Return everything of a SoundInfo."""
    return pack({"sound": [info.index, info.sample_rate_hz, info.channels, info.layout]})


def sound_from(facts: dict[str, Any]) -> SoundInfo:
    """Return the SoundInfo that `pack_sound` packed."""
    return SoundInfo(*facts["sound"])


def _pair(value: Fraction) -> list[int]:
    return [value.numerator, value.denominator]
