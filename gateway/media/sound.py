"""Sound as float32 samples at absolute positions: sample 0 sounds when the video's first frame is shown."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from gateway.media.mp4 import EditPart
from gateway.media.opening import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MAX_VIDEO_S,
    MIN_SAMPLE_RATE_HZ,
    DecodingProgress,
    broken_at,
    decoded_frames,
    is_cover,
    is_decodable,
    open_input,
    parts_of,
)
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.files import PARTIAL

CHUNK_SAMPLES: Final = 16_384
"""Samples of a chunk."""
_JITTER_S: Final = Fraction(1, 50)
"""Times of sound that differ from the count of samples by less than this are rounding of the container, not gaps."""
_SETTLING_S: Final = 1
"""Seconds that are decoded before a part of an edit list: decoders of sound take up to a tenth of that to settle."""
_INTEGER_SCALE: Final = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0}
_AMBIGUOUS: Final = ("pcm_f16le", "pcm_f24le")
"""Codecs that FFmpeg names for WAV files whose samples have 16 or 24 bits in 32."""
_RESAMPLED_AT_ONCE: Final = 16_384
"""Most samples of a channel that the resampler takes at a time."""


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """One sound track.

    Attributes:
        index: index of the stream.
        sample_rate_hz: sample rate.
        layout: FFmpeg's name of the channel layout.
    """

    index: int
    sample_rate_hz: int
    channels: int
    layout: str


@dataclass(frozen=True, slots=True)
class SoundChunk:
    """A piece of sound.

    Attributes:
        start_sample: index of the first sample.
        samples: float32 [samples, channels]; 1.0 is full scale, and decoders may exceed it.
    """

    start_sample: int
    samples: Float32 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Speech:
    """New speech for a video. The first sample belongs to the video's first frame.

    Attributes:
        sample_rate_hz: sample rate.
        chunks: float32 [samples, channels] each, of any length. Every iteration begins with the first sample.
    """

    sample_rate_hz: int
    channels: int
    chunks: Iterable[Float32] = field(repr=False)

    def later(self, seconds: Fraction) -> Speech:
        """Return the speech from a time on, seconds, for a video that begins then. Of shorter speech, no sample is left."""
        skipped = round(seconds * self.sample_rate_hz)
        return replace(self, chunks=_Later(self.chunks, skipped)) if skipped else self


class SoundReader:
    """Streams the first sound track of a video or sound file.

    reader = SoundReader(path, origin=info.video.start)
    for chunk in reader: ...
    """

    def __init__(
        self,
        path: Path | str,
        *,
        origin: Fraction | None = None,
        seek: bool = False,
    ) -> None:
        """Open the first sound track of a file.

        Args:
            origin: time of sample 0 in the container, seconds: `info.video.start` for a video's own sound. Earlier sound is cut
                off. Silence fills the time before later sound, and pauses. None: sample 0 is the first sample of the track.
            seek: whether PCM is read from shortly before `origin` on. The samples are the same. Sound of other codecs is always
                decoded from its begin, because what a decoder gives may depend on what came before.

        Raises:
            MediaUnsupportedError: the file cannot be opened, has no sound track, or the track has more channels or another sample
                rate than the audio stage takes.
        """
        self._path, self._origin, self._seek = Path(path), origin, seek
        with open_input(self._path, field="audio") as container:
            stream = _first_track(container, self._path)
            context = stream.codec_context
            self._parts = parts_of(container, stream, self._path, field="audio")
            self._time_base = stream.time_base or Fraction(1, context.sample_rate)
            self.info = SoundInfo(stream.index, context.sample_rate, context.layout.nb_channels, context.layout.name)
        _refuse_layout(self._path, self.info, context.name)

    def check_sound(self) -> None:
        """Check that the track has a sample. Speech without a sample is a mistake, and would be taken for silence.

        Raises:
            MediaUnsupportedError: the track has no sample, or its first samples cannot be decoded.
        """
        if next(self._pieces(), None) is None:
            raise MediaUnsupportedError(
                f"{self._path} has a sound track but no sound in it; give a file with speech in it", field="audio"
            )

    def __iter__(self) -> Iterator[SoundChunk]:
        """Yield chunks of CHUNK_SAMPLES samples, the last one shorter, without gap or overlap, from sample 0 on.

        Raises:
            MediaUnsupportedError: the track breaks off with an error, changes rate or channels, has samples that are no numbers, or
                is longer than any video.
        """
        start, held, size = 0, [], 0
        for samples in self._pieces():
            held.append(samples)
            size += len(samples)
            if size < CHUNK_SAMPLES:
                continue
            joined = np.concatenate(held)
            for offset in range(0, size - size % CHUNK_SAMPLES, CHUNK_SAMPLES):
                yield SoundChunk(start, joined[offset : offset + CHUNK_SAMPLES])
                start += CHUNK_SAMPLES
            held, size = [joined[size - size % CHUNK_SAMPLES :]], size % CHUNK_SAMPLES
        if size:
            yield SoundChunk(start, np.concatenate(held))

    def speech(self, channel: int | None = None) -> Speech:
        """Return the track as new speech of a video.

        Args:
            channel: number of the only channel that is taken, from 0; None: all channels.

        Raises:
            InvalidRequestError: the track has no such channel.
        """
        if channel is None:
            return Speech(self.info.sample_rate_hz, self.info.channels, _Samples(self))
        if not 0 <= channel < self.info.channels:
            have = f"the channels 1 to {self.info.channels}" if self.info.channels > 1 else "channel 1 only"
            raise InvalidRequestError(f"{self._path} has {have}, and channel {channel + 1} was asked for", field="audio_channel")
        return Speech(self.info.sample_rate_hz, 1, _Samples(self, channel))

    def _pieces(self) -> Iterator[Float32]:
        """Yield samples in order, without gaps, in pieces as they are decoded. Pieces of silence are at most as long as a chunk."""
        rate, origin, expected = self.info.sample_rate_hz, self._origin, 0
        # The parts of an edit list are exact to the sample.
        jitter = 0 if self._parts else _JITTER_S * rate
        for time, decoded in self._shown_samples() if self._parts else self._samples():
            samples = decoded
            if not np.isfinite(samples).all():
                raise self._not_finite(samples, expected)
            if time is not None:
                if origin is None:
                    origin = time
                position = round((time - origin) * rate)
                if position > MAX_VIDEO_S * rate:
                    raise MediaUnsupportedError(
                        f"{self._path}: its sound goes on at {float(time):.6g} s, at most {MAX_VIDEO_S // 3600} h are accepted; "
                        "cut it, or write its times anew (ffmpeg -i IN OUT.wav)",
                        field="audio",
                    )
                if abs(position - expected) > jitter or expected == 0:
                    while position > expected:
                        silence = np.zeros((min(position - expected, CHUNK_SAMPLES), self.info.channels), np.float32)
                        expected += len(silence)
                        yield silence
                    samples = samples[min(expected - position, len(samples)) :]
            if len(samples):
                expected += len(samples)
                yield samples

    def _samples(self, part: EditPart | None = None) -> Generator[tuple[Fraction | None, Float32]]:
        """Yield the samples of each decoded frame, and their time in seconds.

        Args:
            part: part of an edit list, whose samples begin a second before the part; None: the whole track.
        """
        packed: av.AudioResampler | None = None
        for frame in self._frames(part):
            packed = packed or av.AudioResampler(format=frame.format.packed)
            time = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None
            yield time, _float_samples(frame, packed)

    def _shown_samples(self) -> Iterator[tuple[Fraction, Float32]]:
        """Yield the samples that an edit list plays, and the times at which they are played, seconds: whole samples."""
        rate = self.info.sample_rate_hz
        for part in self._parts:
            at, begin = round(part.shown_at * rate), round(part.begin * self._time_base * rate)
            end = None if part.length is None else begin + round((part.shown_at + part.length) * rate) - at
            position: int | None = None
            with closing(self._samples(part)) as decoded:
                for time, samples in decoded:
                    exact = round((time or Fraction(0)) * rate)
                    if position is None or abs(exact - position) > _JITTER_S * rate:
                        position = exact
                    inside = samples[max(begin - position, 0) : None if end is None else max(end - position, 0)]
                    if len(inside):
                        yield Fraction(at + max(position, begin) - begin, rate), inside
                    position += len(samples)
                    if end is not None and position >= end:
                        break

    def _skip(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        """Seek to a second before the origin, if samples are to be left out."""
        if self._seek and self._origin is not None and stream.time_base and stream.codec_context.name.startswith("pcm_"):
            ticks = int((self._origin - 1) / stream.time_base)
            if ticks > (stream.start_time or 0):
                container.seek(ticks, stream=stream)

    def _not_finite(self, samples: Float32, before: int) -> MediaUnsupportedError:
        number, channel = (int(indices[0]) for indices in np.nonzero(~np.isfinite(samples)))
        seconds = (before + number) / self.info.sample_rate_hz
        return MediaUnsupportedError(
            f"{self._path}: its sound at {seconds:.3f} s is {samples[number, channel]}, which is no number; "
            "write it anew from its source",
            field="audio",
        )

    def _frames(self, part: EditPart | None) -> Iterator[av.AudioFrame]:
        reached = DecodingProgress()
        with open_input(self._path, field="audio", only="sound", follow_edits=part is None) as container:
            stream = _first_track(container, self._path)
            if part is None:
                self._skip(container, stream)
            elif part.begin * self._time_base > _SETTLING_S:
                container.seek(part.begin - int(_SETTLING_S / self._time_base), stream=stream)
            for frame in decoded_frames(container, stream, self._path, reached, field="audio"):
                if frame.sample_rate != self.info.sample_rate_hz or frame.layout.nb_channels != self.info.channels:
                    raise broken_at(self._path, reached.seconds, "its sound changes rate or channels", field="audio")
                if frame.pts is not None and frame.time_base:
                    reached.seconds = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
                yield frame


@dataclass(frozen=True, slots=True)
class _Later:
    """Sound without its first samples, read anew in each iteration."""

    chunks: Iterable[Float32]
    skipped: int

    def __iter__(self) -> Iterator[Float32]:
        left = self.skipped
        for chunk in self.chunks:
            if len(chunk) > left:
                yield chunk[left:]
            left = max(0, left - len(chunk))


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples of a reader, of all channels or of one, decoded anew in each iteration."""

    reader: SoundReader
    channel: int | None = None

    def __iter__(self) -> Iterator[Float32]:
        if self.channel is None:
            return (chunk.samples for chunk in self.reader)
        return (chunk.samples[:, self.channel, None] for chunk in self.reader)


def sound_file(path: Path) -> SoundReader:
    """Return the reader of the first sound track of a file. If the file has a picture, sample 0 sounds with its first frame.

    Raises:
        MediaUnsupportedError: as `SoundReader`.
    """
    with open_input(path, field="audio") as container:
        starts = [
            stream.start_time * (stream.time_base or Fraction(0))
            for stream in container.streams.video
            if stream.start_time is not None and not is_cover(stream)
        ]
    return SoundReader(path, origin=starts[0] if starts else None)


def _first_track(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    tracks = [stream for stream in container.streams.audio if is_decodable(stream)]
    if not tracks and container.streams.audio:
        raise MediaUnsupportedError(
            f"{path}: the sound is in a codec that cannot be decoded here; save it as WAV in the program that wrote the file",
            field="audio",
        )
    if not tracks:
        raise MediaUnsupportedError(f"{path} has no sound track; give a file with speech in it", field="audio")
    return tracks[0]


def _refuse_layout(path: Path, info: SoundInfo, codec: str) -> None:
    if codec in _AMBIGUOUS:
        raise MediaUnsupportedError(
            f"{path}: its sound has samples of fewer bits than their room, which may be whole numbers or floating-point; "
            "save it as WAV with 16, 24 or 32 bits",
            field="audio",
        )
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise MediaUnsupportedError(
            f"{path}: its sound has {info.channels} channels, 1 to {MAX_CHANNELS} are accepted; "
            "mix it down (ffmpeg -i IN -ac 1 OUT.wav)",
            field="audio",
        )
    if not MIN_SAMPLE_RATE_HZ <= info.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise MediaUnsupportedError(
            f"{path}: its sound has a sample rate of {info.sample_rate_hz} Hz, {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz are "
            "accepted; convert it (ffmpeg -i IN -ar 48000 OUT.wav)",
            field="audio",
        )


def _float_samples(frame: av.AudioFrame, packed: av.AudioResampler) -> Float32:
    """Return a decoded frame of any sample format as float32 [samples, channels]. Integers are divided by their full scale."""
    channels = frame.layout.nb_channels
    # FFmpeg interleaves the planes: with exactly eight planes, PyAV reads one too many and crashes.
    frames = packed.resample(frame) if frame.format.is_planar else [frame]
    array = np.concatenate([piece.to_ndarray().reshape(-1, channels) for piece in frames])
    name = frame.format.name.removesuffix("p")
    if name == "u8":
        return np.asarray((array.astype(np.float32) - 128.0) / 128.0, np.float32)
    if name in _INTEGER_SCALE:
        return np.asarray(array / np.float64(_INTEGER_SCALE[name]), np.float32)
    return np.ascontiguousarray(array, dtype=np.float32)


def resampled(chunks: Iterable[Float32], from_hz: int, to_hz: int, channels: int) -> Iterator[Float32]:
    """Yield sound at another sample rate, float32 [samples, channels] each.

    Args:
        chunks: float32 [samples, channels] each.
        channels: number of channels, of any meaning.
    """
    if from_hz == to_hz:
        yield from chunks
        return
    # Channels are resampled one by one, so that no layout changes them.
    filters = [av.AudioResampler(format="flt", layout="mono", rate=to_hz) for _ in range(channels)]
    for chunk in chunks:
        for begin in range(0, len(chunk), _RESAMPLED_AT_ONCE):
            piece = chunk[begin : begin + _RESAMPLED_AT_ONCE]
            yield np.stack([_passed(one, piece[:, channel], from_hz) for channel, one in enumerate(filters)], axis=1)
    yield np.stack([_passed(one, None, from_hz) for one in filters], axis=1)


def _passed(resampler: av.AudioResampler, samples: Float32 | None, rate_hz: int) -> Float32:
    frame = None
    if samples is not None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="flt", layout="mono")
        frame.sample_rate = rate_hz
    parts = [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def write_sound_from(source: Path, first_sample: int, target: Path) -> None:
    """Write a sound file from a sample on, as WAV with 32-bit floating point samples. A file of this name is replaced. Blocks.

    Raises:
        MediaUnsupportedError: the file cannot be read, or has no sound.
        OSError: the target cannot be written.
    """
    reader = SoundReader(source)
    partial = target.with_name(f"{target.name}{PARTIAL}")
    try:
        with av.open(str(partial), "w", format="wav") as output:
            stream = output.add_stream("pcm_f32le", rate=reader.info.sample_rate_hz, layout=reader.info.layout)
            assert isinstance(stream, av.AudioStream)
            for samples in _Later(_Samples(reader), first_sample):
                packed = np.ascontiguousarray(samples.reshape(1, -1), dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=reader.info.layout)
                frame.sample_rate = reader.info.sample_rate_hz
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def sound_length(source: Path) -> tuple[int, int]:
    """Return the number of samples of a sound file and its sample rate, Hz. Reads the whole file. Blocks.

    Raises:
        MediaUnsupportedError: the file cannot be read, or has no sound.
    """
    reader = SoundReader(source)
    reader.check_sound()
    return sum(len(chunk.samples) for chunk in reader), reader.info.sample_rate_hz
