"""Encodes new speech next to the picture, up to a given time in each call."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.container import OutputContainer

from gateway.media.sound import Speech
from services.common.array_types import Float32
from services.common.errors import InvalidRequest

_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BIT_RATE_PER_CHANNEL: Final = 128_000
_PIECE: Final = 4096


class SpeechEncoder:
    """A sound track of an output with new speech, which is cut at the film's end or followed by silence until then."""

    def __init__(
        self,
        speech: Speech,
        codec: str,
        output: OutputContainer,
        *,
        start: Fraction,
        duration: Fraction,
        language: str | None,
    ) -> None:
        """Add the track to an output.

        Args:
            speech: the speech.
            codec: FFmpeg's name of the encoder.
            output: the open output.
            start: time of the film's first frame in the output, seconds.
            duration: length of the film, seconds.
            language: language tag of the track; None: no tag.

        Raises:
            InvalidRequest: the speech has no channel, or a sample rate that is not positive.
        """
        if speech.channels < 1 or speech.sample_rate_hz < 1:
            raise InvalidRequest(
                f"speech of {speech.channels} channels at {speech.sample_rate_hz} Hz cannot be written", field="audio"
            )
        self._speech = speech
        self._channels = speech.channels if speech.channels in _LAYOUTS else 2
        self._rate = _output_rate(codec, speech.sample_rate_hz, output.format.name)
        stream = output.add_stream(codec, rate=self._rate)
        assert isinstance(stream, av.AudioStream)
        self._stream: av.AudioStream = stream
        context = stream.codec_context
        context.layout = _LAYOUTS[self._channels]
        context.format = {"aac": "fltp", "flac": "s32", "pcm_s16le": "s16", "pcm_s24le": "s32"}[codec]
        context.time_base = Fraction(1, self._rate)
        if codec == "aac":
            context.bit_rate = _BIT_RATE_PER_CHANNEL * self._channels
        if language:
            self._stream.metadata["language"] = language
        self._resampler = av.AudioResampler(format=context.format, layout=context.layout, rate=self._rate)
        self._start, self._position, self._end = start, 0, round(duration * speech.sample_rate_hz)
        self._first_tick = round(start * self._rate)
        self._written = 0
        self._pieces = self._cut(iter(speech.chunks))

    def _cut(self, chunks: Iterator[Float32]) -> Iterator[Float32]:
        """Yield the speech in pieces of bounded length up to the film's end, and silence after the speech."""
        left = self._end
        for chunk in chunks:
            if chunk.ndim != 2 or chunk.shape[1] != self._speech.channels:
                raise InvalidRequest(f"speech has shape {chunk.shape}, expected [samples, {self._speech.channels}]", field="audio")
            for offset in range(0, min(len(chunk), left), _PIECE):
                piece = chunk[offset : offset + min(_PIECE, left - offset)]
                yield piece
            left -= min(len(chunk), left)
            if left == 0:
                return
        while left:
            piece = np.zeros((min(_PIECE, left), self._speech.channels), np.float32)
            left -= len(piece)
            yield piece

    def encode_until(self, output: OutputContainer, time: Fraction | None) -> None:
        """Mux sound up to `time`, seconds of the output; None: all remaining sound, and what the encoder still holds."""
        while time is None or self._start + Fraction(self._position, self._speech.sample_rate_hz) <= time:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._position += len(piece)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(self._mixed(piece).reshape(1, -1)), "flt", _LAYOUTS[self._channels]
            )
            frame.sample_rate = self._speech.sample_rate_hz
            for ready in self._resampler.resample(frame):
                self._encode(output, ready)
        if time is None:
            for ready in self._resampler.resample(None):
                self._encode(output, ready)
            output.mux(self._stream.encode(None))

    def _encode(self, output: OutputContainer, frame: av.AudioFrame) -> None:
        frame.pts, frame.time_base = self._first_tick + self._written, Fraction(1, self._rate)
        self._written += frame.samples
        output.mux(self._stream.encode(frame))

    def _mixed(self, piece: Float32) -> Float32:
        """Return finite samples in the track's channels. For layouts without a name, both channels are the mean of all channels."""
        clean = np.clip(np.nan_to_num(piece), -1.0, 1.0).astype(np.float32)
        return clean if self._channels == self._speech.channels else np.repeat(clean.mean(1, keepdims=True), 2, axis=1)


def _output_rate(codec: str, rate: int, container: str) -> int:
    if "mxf" in container:
        return 48000  # the only rate of MXF
    if codec == "aac":
        return min(_AAC_RATES, key=lambda known: (known < rate, abs(known - rate)))
    return rate
