"""Pictures and videos of reports: contact sheets, cuts of videos, and side-by-side videos that every browser plays (H.264, 4:2:0,
AAC).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from gateway.media.encoders import encoder_options
from gateway.media.reader import to_reduced_rgb, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.reports.types import BeforeAfter, SideBySide
from services.common.array_types import Float32, UInt8

_GAP: Final = 4
_QUALITY: Final = 92
_AUDIO_BLOCK: Final = 1024
MOST_FRAMES: Final = 750
"""Most frames of curves, video and tracking, so that the report of a long video stays small."""
VIDEO_HEIGHT: Final = 360


def write_picture(path: Path, picture: UInt8) -> None:
    """Write a picture, uint8 [H, W, 3] RGB, as PNG or JPEG, whichever the path's suffix names."""
    written, data = cv2.imencode(path.suffix, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise ValueError(f"no encoder for {path.suffix}")
    path.write_bytes(data.tobytes())


def stack_rows(rows: Sequence[UInt8]) -> UInt8:
    """Return a contact sheet: rows of pictures, one under the other.

    Args:
        rows: uint8 [N, H, W, 3] each, one row or more. All rows have the same H and W; N may differ.

    Returns:
        uint8 [rows * (H + 4) - 4, N_max * (W + 4) - 4, 3]; unused cells are mid-grey.
    """
    _, height, width, _ = rows[0].shape
    most = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + _GAP) - _GAP, most * (width + _GAP) - _GAP, 3), 128, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + _GAP), c * (width + _GAP)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def before_after_sheet(pairs: Sequence[BeforeAfter]) -> UInt8:
    """Return two rows of pictures: before, and after below. There is one pair or more, and all pictures have one shape."""
    return stack_rows([np.stack([pair.before for pair in pairs]), np.stack([pair.after for pair in pairs])])


def contact_sheet(pictures: Sequence[UInt8], columns: int) -> UInt8:
    """Return one or more pictures of one shape in rows of `columns`. Grey fills up the last row."""
    rows = [np.stack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    return stack_rows(rows)


def reduced(picture: UInt8, height: int) -> UInt8:
    """Return a picture with at most `height` rows, in the same proportions, with even sides."""
    height = min(height, picture.shape[0]) // 2 * 2
    width = max(2, round(picture.shape[1] * height / picture.shape[0]) // 2 * 2)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def beside(left: UInt8, right: UInt8) -> UInt8:
    """Return two pictures of one height next to each other: uint8 [H, W, 3] each -> [H, 2 W, 3]."""
    return np.concatenate([left, right], axis=1)


def write_side_by_side(path: Path, video: SideBySide) -> int:
    """Write the video, and return its number of frames. Pictures are taken one by one, so that any length fits in memory.

    Without a picture, no file is written.
    """
    pictures: Iterator[UInt8] = iter(video.pictures)
    first: UInt8 | None = next(pictures, None)
    if first is None:
        return 0
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=video.frame_rate, options=encoder_options("h264", "yuv420p", 20))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = None
        if video.speech is not None:
            sound = container.add_stream("aac", rate=video.sample_rate_hz, layout="mono")
        frames = 0
        picture: UInt8 | None = first
        while picture is not None:
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            shown.pts, shown.time_base = frames, 1 / video.frame_rate
            container.mux(stream.encode(shown))
            frames, picture = frames + 1, next(pictures, None)
        container.mux(stream.encode(None))
        if sound is not None and video.speech is not None:
            samples = video.speech[: int(frames / video.frame_rate * video.sample_rate_hz)]
            for start in range(0, len(samples), _AUDIO_BLOCK):
                block = np.ascontiguousarray(samples[None, start : start + _AUDIO_BLOCK], dtype=np.float32)
                audio_frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                audio_frame.sample_rate, audio_frame.pts = video.sample_rate_hz, start
                container.mux(sound.encode(audio_frame))
            container.mux(sound.encode(None))
    return frames


def cut_around(picture: UInt8, box: tuple[int, int, int, int]) -> UInt8:
    """Return a square of a picture around a box (left, top, width, height, pixels), uint8 [256, 256, 3]."""
    left, top, width, height = box
    side = int(1.2 * max(width, height))
    x = int(np.clip(left + (width - side) // 2, 0, max(0, picture.shape[1] - side)))
    y = int(np.clip(top + (height - side) // 2, 0, max(0, picture.shape[0] - side)))
    return np.asarray(cv2.resize(picture[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)


def small_pair(left: DecodedFrame, right: DecodedFrame) -> UInt8:
    """Return two frames beside each other, uint8 [VIDEO_HEIGHT, W, 3] RGB."""
    return beside(_reduced(left), _reduced(right))


def _reduced(frame: DecodedFrame) -> UInt8:
    width, height = frame.video.orientation.upright_size
    factor = height // VIDEO_HEIGHT
    # Small pictures are converted in a fraction of the time.
    picture = to_reduced_rgb(frame, factor) if factor >= max(frame.video.pixel.chroma_step) else to_rgb(frame)
    size = (max(2, int(width * VIDEO_HEIGHT / height) // 2 * 2), VIDEO_HEIGHT)
    flags = cv2.INTER_AREA if picture.shape[0] > VIDEO_HEIGHT else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=flags), np.uint8)


def output_sound(result: MediaInfo) -> Float32 | None:
    """Return the sound of the first MOST_FRAMES frames of a video, float32 [N], mono; None: the video has no sound."""
    if not result.audio:
        return None
    limit = MOST_FRAMES / float(result.video.average_rate) * result.audio[0].sample_rate_hz
    pieces: list[Float32] = []
    for chunk in SoundReader(result.path, origin=result.video.start):
        pieces.append(chunk.samples.mean(axis=1))
        if chunk.start_sample > limit:
            break
    return np.concatenate(pieces) if pieces else None


def output_sound_rate(result: MediaInfo) -> int:
    """Return the sample rate of a video's sound, Hz; 16000 without sound."""
    return result.audio[0].sample_rate_hz if result.audio else 16000
