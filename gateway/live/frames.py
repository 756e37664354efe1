"""The frames of a span of footage, ready for the mouths of live streams, in bounded memory.

A thread decodes the footage in blocks, each shortly before a stream shows the block for the first time. Of a long span, each frame
is then kept without loss in a file, so that streams can play the span backwards too: every frame is compressed by itself, so any
frame is read as fast as any other.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext

from gateway.compositing.blend import blend_box, paste_box, without_cover
from gateway.compositing.detail import box_with_detail, skin_under
from gateway.compositing.jaw import JawMove, move_jaw, warp_footage
from gateway.dub.analyse.face_records import cut_box
from gateway.dub.learn.live_span import LiveSpan
from gateway.dub.state.native_boxes import native_luma
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import DecodedFrame, MediaInfo, VideoInfo
from services.common.array_types import Bool, Float32, UInt8
from services.common.errors import DubstageError
from services.common.face.actor_geometry import ActorGeometry, lower_face_mask
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.face.mouth_detail import grey
from services.common.files import translating_full_disk

MAX_DECODED: Final = 75
"""Most decoded frames in memory: three seconds, 200 MB at 1280 x 720. Shorter spans need no file."""
MAX_FILE_BYTES: Final = 6_000_000_000
"""Most bytes of the frames of a long span before compression. The file has 10 to 40 % of them."""
BLOCK: Final = 25
"""Frames that are decoded together, and how far ahead of a stream: a second."""
_NEAR: Final = 50
"""Frames of the footage that are decoded and left out rather than sought over."""
_CODEC: Final[Literal["magicyuv"]] = "magicyuv"
"""The fastest to decode of FFmpeg's lossless codecs that compress every frame by itself."""
_PLANES: Final = ("yuv420p", "yuv422p", "yuv444p")
"""Pixel formats of footage whose planes the codec takes."""
_CHROMA_POSITIONS: Final = ("left", "unknown", "center", "topleft", "top", "bottomleft", "bottom")
_PIXELS: Final = BOX_SIZE * BOX_SIZE
_BOX_BYTES: Final = 3 * _PIXELS
_HEAD_BYTES: Final = _BOX_BYTES + _PIXELS + _PIXELS // 8


@dataclass(frozen=True, slots=True, eq=False)
class FootageFrame:
    """A frame of the footage behind a live stream.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        pose: head pose.
        box: render box, uint8 [160, 160, 3], RGB.
        mask: lower-face mask, uint8 [160, 160].
        filmed: the footage's own mouth-area landmarks, float32 [59, 2], box pixels.
        movable: pixels that may move and change, bool [160, 160] (FaceColours.movable).
        covered: bool [160, 160], pixels of what covers the face, which keep the samples of the footage; None: the face is free.
    """

    picture: UInt8
    pose: HeadPose
    box: UInt8
    mask: UInt8
    filmed: Float32
    movable: Bool
    covered: Bool | None = None

    def moved(self, target: Float32, detail: UInt8 | None = None, own: UInt8 | None = None) -> MovedFrame:
        """Return the frame with its jaw under a new mouth.

        Args:
            target: float32 [59, 2], target mouth-area landmarks, box pixels.
            detail: see MovedFrame.
            own: see MovedFrame.
        """
        move = move_jaw(self.filmed, target, self.mask, self.movable)
        if self.covered is not None:
            move = move.behind(self.covered)
        return MovedFrame(self, move, warp_footage(self.box, move.shift), target, detail, own)


@dataclass(frozen=True, slots=True, eq=False)
class MovedFrame:
    """A frame of the footage whose jaw has moved with a new mouth.

    Attributes:
        footage: the frame.
        move: how the frame moves, and where the mouth shows.
        background: render box after the move, uint8 [160, 160, 3], RGB.
        target: float32 [59, 2], target mouth-area landmarks, box pixels.
        detail: uint8 [160 S, 160 S], detail of the mouth at S pixels per box pixel (box_with_detail); None: no detail.
        own: uint8 [160, 160, 3], the bank's mouth, which gives the mouth its colours; None: the mouth keeps the renderer's.
    """

    footage: FootageFrame
    move: JawMove
    background: UInt8
    target: Float32
    detail: UInt8 | None = None
    own: UInt8 | None = None

    def with_mouth(self, box: UInt8, mask: UInt8, light: Float32 | None = None) -> UInt8:
        """Return the frame with a rendered box in it, uint8 [H, W, 3], RGB.

        Args:
            box: uint8 [160, 160, 3], RGB.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
            light: float32 [160, 160], grey levels that are added to the box (StreamMarks); None: nothing is added.
        """
        footage, shown = self.footage, np.minimum(mask, self.move.mask)
        finished = blend_box(box, without_cover(self.background, box, footage.covered), shown)
        if self.detail is not None:
            own = native_luma(grey(footage.picture), footage.pose, len(self.detail) // BOX_SIZE).astype(np.float32)
            finished = box_with_detail(finished, self.detail, shown, skin_under(shown, footage.filmed, self.target), own)
        return paste_box(footage.picture, footage.pose, finished, shown, self.move.shift, light=light)


def num_shown(span: LiveSpan, info: MediaInfo) -> int:
    """Return how many frames of a span are shown: as many as MAX_FILE_BYTES hold, or MAX_DECODED."""
    width, height = info.video.orientation.upright_size
    return min(len(span), max(MAX_DECODED, MAX_FILE_BYTES // (3 * width * height)))


class FootageFrames:
    """The frames of a span. Any number of threads may ask for frames.

    Args:
        info: the footage, whose path stays readable while `video` is open.
        video: the open file of the footage, which this object closes.
        span: which frames.
        geometry: of the person.
    """

    def __init__(self, info: MediaInfo, video: BinaryIO, span: LiveSpan, geometry: ActorGeometry) -> None:
        self._span, self._geometry = span, geometry
        self._source = _Source(info)
        self._count = num_shown(span, info)
        # The file has no name, so that a killed process leaves no pictures of the person.
        self._file = tempfile.TemporaryFile(buffering=0) if self._count > MAX_DECODED else None  # noqa: SIM115
        self._codec = _LosslessCodec(info.video)
        # Keys are positions in the span. `_kept` has the bytes of the file that hold a frame, `_decoded` the decoded frames (in a
        # long span: only frames that no stream has shown yet).
        self._kept: dict[int, range] = {}
        self._decoded: OrderedDict[int, FootageFrame] = OrderedDict()
        self._begun: set[int] = set()
        self._failures: dict[int, Exception] = {}
        self._changed = threading.Condition()
        self._worker = ThreadPoolExecutor(1, "live-footage")
        files = [file for file in (video, self._file) if file is not None]
        weakref.finalize(self, _close, self._worker, files)

    def __len__(self) -> int:
        return self._count

    def prepare(self, index: int) -> None:
        """Decode the block of a frame, unless that was done. Does not wait."""
        with self._changed:
            self._begin(index // BLOCK)

    def frame(self, index: int) -> FootageFrame:
        """Return frame `index` of the span. Waits until the frame is decoded.

        Raises:
            MediaUnsupportedError: the footage cannot be decoded.
            StorageFullError: there is no space for the file of frames.
        """
        if (frame := self._ready(index)) is not None:
            return frame
        where = self._kept[index]
        box, mask, movable = _split(self._read(where[:_HEAD_BYTES]))
        return self._framed(index, self._codec.decoded(self._read(where[_HEAD_BYTES:])), box, mask, movable)

    def box(self, index: int) -> UInt8:
        """Return the render box of frame `index`, uint8 [160, 160, 3], RGB. Waits and raises as `frame`."""
        if (frame := self._ready(index, only_look=True)) is not None:
            return frame.box
        return _split(self._read(self._kept[index][:_HEAD_BYTES]))[0]

    def _ready(self, index: int, *, only_look: bool = False) -> FootageFrame | None:
        """Wait for a frame, and return it; None: the file has the frame. A frame that the file will have leaves the memory."""
        with self._changed:
            while index not in self._decoded and index not in self._kept:
                # The next call tries again.
                if (failure := self._failures.pop(index // BLOCK, None)) is not None:
                    raise failure
                self._begin(index // BLOCK)
                self._changed.wait()
            if self._file is not None and not only_look:
                return self._decoded.pop(index, None)
            return self._decoded.get(index)

    def _begin(self, block: int) -> None:
        if block not in self._begun:
            self._begun.add(block)
            self._worker.submit(self._fill, block)

    def _fill(self, block: int) -> None:
        try:
            for index in range(block * BLOCK, min((block + 1) * BLOCK, self._count)):
                if index not in self._kept:
                    self._make(index)
        except Exception as failure:
            with self._changed:
                self._begun.discard(block)
                self._failures[block] = failure
                self._changed.notify_all()

    def _make(self, index: int) -> None:
        (source, picture), pose = self._source.frame(int(self._span.frames[index])), self._span.pose(index)
        box, mask = cut_box(picture, pose), lower_face_mask(self._geometry, pose)
        frame = self._framed(index, picture, box, mask, self._span.colours.movable(box, self._span.mouth(index)))
        with self._changed:
            self._decoded[index] = frame
            if len(self._decoded) > MAX_DECODED:
                self._decoded.popitem(last=False)
            self._changed.notify_all()
        if self._file is not None:
            where = self._append(_joined(frame) + self._codec.encoded(source, picture, compare=index % BLOCK == 0))
            with self._changed:
                self._kept[index] = where
                self._changed.notify_all()

    def _framed(self, index: int, picture: UInt8, box: UInt8, mask: UInt8, movable: Bool) -> FootageFrame:
        span = self._span
        return FootageFrame(picture, span.pose(index), box, mask, span.mouth(index), movable, span.cover(index))

    def _append(self, data: bytes) -> range:
        assert self._file is not None
        folder = Path(tempfile.gettempdir())
        begin = os.lseek(self._file.fileno(), 0, os.SEEK_END)
        with translating_full_disk(f"no space left in {folder} for the footage of a live stream: free some", folder):
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], begin + written)
        return range(begin, begin + len(data))

    def _read(self, where: range) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), len(where), where.start)


def _close(worker: ThreadPoolExecutor, files: list[BinaryIO]) -> None:
    worker.shutdown(wait=False, cancel_futures=True)
    for file in files:
        file.close()


def _joined(frame: FootageFrame) -> bytes:
    return frame.box.tobytes() + frame.mask.tobytes() + np.packbits(frame.movable).tobytes()


def _split(head: bytes) -> tuple[UInt8, UInt8, Bool]:
    box = np.frombuffer(head, np.uint8, _BOX_BYTES).reshape(BOX_SIZE, BOX_SIZE, 3)
    mask = np.frombuffer(head, np.uint8, _PIXELS, _BOX_BYTES).reshape(BOX_SIZE, BOX_SIZE)
    movable = np.unpackbits(np.frombuffer(head, np.uint8, -1, _BOX_BYTES + _PIXELS))
    return box, mask, movable.reshape(BOX_SIZE, BOX_SIZE).astype(np.bool_)


class _Source:
    """Frames of the footage by their number, fast in ascending order. For one thread at a time."""

    def __init__(self, info: MediaInfo) -> None:
        self._reader, self._num_frames = VideoReader(info), info.video.num_frames
        self._frames: Iterator[DecodedFrame] | None = None
        self._last: tuple[DecodedFrame, UInt8] | None = None

    def frame(self, number: int) -> tuple[DecodedFrame, UInt8]:
        """Return frame `number`, and its picture, uint8 [H, W, 3], RGB."""
        following = self._last[0].index + 1 if self._last is not None else 0
        if self._last is not None and self._last[0].index == number:
            return self._last
        try:
            if self._frames is None or not following <= number <= following + _NEAR:
                self._frames = self._reader.frames_from(number, self._num_frames)
            decoded = next(frame for frame in self._frames if frame.index == number)
        except DubstageError:
            self._frames = None
            raise
        self._last = decoded, to_rgb(decoded)
        return self._last


class _LosslessCodec:
    """Compression of single frames of one video. One thread encodes, any number of threads decode.

    The planes of a frame, with chroma at half the size, take half of the time and space of its picture. A first byte
    tells planes from a picture.

    Args:
        video: the video, which tells how planes become a picture.
    """

    def __init__(self, video: VideoInfo) -> None:
        self._video = video
        self._has_planes = video.pixel.name in _PLANES
        self._planes, self._pictures = _PlaneCodec(video.pixel.name), _PlaneCodec("gbrp")

    def encoded(self, frame: DecodedFrame, picture: UInt8, *, compare: bool) -> bytes:
        """Return a frame in compressed form.

        Args:
            frame: the frame.
            picture: its picture, uint8 [H, W, 3], RGB.
            compare: whether the picture is decoded and compared. PyAV does not tell where the chroma samples of a frame lie, so the
                first comparison tries their positions. If planes give another picture, they are not used any more.
        """
        if self._has_planes:
            data = b"\1" + self._planes.encoded(frame.picture)
            if not compare or self._gives(data, picture):
                return data
            self._has_planes = False
        height, width = picture.shape[:2]
        planes = av.VideoFrame(width, height, "gbrp")
        red, green, blue = cv2.split(picture)
        for plane, values in zip(planes.planes, (green, blue, red), strict=True):
            np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)[:height, :width] = values
        return b"\0" + self._pictures.encoded(planes)

    def _gives(self, data: bytes, picture: UInt8) -> bool:
        """Return whether the compressed planes give a picture, and set the position of the chroma samples before the first call."""
        if self._planes.chroma_position:
            return np.array_equal(self.decoded(data), picture)
        for position in _CHROMA_POSITIONS:
            self._planes.chroma_position = position
            if np.array_equal(self.decoded(data), picture):
                return True
        return False

    def decoded(self, data: bytes) -> UInt8:
        """Return the picture of a frame that `encoded` gave, uint8 [H, W, 3], RGB."""
        if data[0]:
            return to_rgb(DecodedFrame(0, 0, (), self._planes.decoded(data[1:]), self._video))
        frame = self._pictures.decoded(data[1:])
        green, blue, red = (
            np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
            for plane in frame.planes
        )
        return np.asarray(cv2.merge([red, green, blue]), np.uint8)


class _PlaneCodec:
    """Compression of single frames of one size and pixel format. One thread encodes, any number of threads decode.

    Attributes:
        chroma_position: where the chroma samples of decoded frames lie, in FFmpeg's words; empty: not known yet.
    """

    def __init__(self, pixel_format: str) -> None:
        self.chroma_position = ""
        self._pixel_format = pixel_format
        self._encoder: VideoCodecContext | None = None
        self._decoders: list[tuple[str, VideoCodecContext]] = []
        self._count = 0

    def encoded(self, frame: av.VideoFrame) -> bytes:
        """Return a frame in compressed form. The frame gets another time."""
        if self._encoder is None:
            self._encoder = _context("w", frame.width, frame.height, self._pixel_format)
        frame.pts, frame.time_base = self._count, self._encoder.time_base
        self._count += 1
        (packet,) = self._encoder.encode(frame)
        return bytes(packet)

    def decoded(self, data: bytes) -> av.VideoFrame:
        """Return a frame with the samples of the frame that `encoded` took."""
        assert self._encoder is not None
        # A decoder serves one thread at a time. Taking from a list and adding to it is safe in threads.
        position = self.chroma_position
        try:
            of, decoder = self._decoders.pop()
        except IndexError:
            of, decoder = "", None
        if decoder is None or of != position:
            decoder = _context("r", self._encoder.width, self._encoder.height, self._pixel_format)
            decoder.options = {"chroma_sample_location": position or "unknown"}
        (frame,) = decoder.decode(av.Packet(data))
        self._decoders.append((position, decoder))
        return frame


def _context(mode: Literal["r", "w"], width: int, height: int, pixel_format: str) -> VideoCodecContext:
    context = av.CodecContext.create(_CODEC, mode)
    context.width, context.height, context.pix_fmt = width, height, pixel_format
    context.thread_count = 1
    if mode == "w":
        context.time_base = Fraction(1, 25)
        # This predictor takes the least time of all in both directions, and three quarters of the default's space.
        context.options = {"pred": "gradient"}
    return context
