"""The sound of a scene: each line's speech at its time, and the footage's own sound before, between and after the lines.

A line replaces the footage's sound for as long as its speech lasts. Lines of different people that overlap are added. Outside of
the lines, every sample is the footage's own.

With a mix, music and effects lie under the lines alone: the footage's sound has its own music and effects. In a line, the sound is
(lines + level * duck(t) * stem) * scale (gateway/media/mix.py), where `scale` keeps lines and stem together within full scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Self

import av
import numpy as np

from gateway.media.mix import MixedSound, SoundMix, ducked
from gateway.media.sound import SoundReader, Speech, resampled, sound_file
from gateway.media.types import MediaInfo
from gateway.media.voice import only_voice
from services.common.array_types import Float32

_RAMP_S: Final = 0.01
"""Seconds at either end of a line in which the footage's sound fades out and in, inside the line."""
_PIECE: Final = 16_384
_LAYOUTS: Final = ("mono", "stereo")
_CENTRE: Final = "FC"
"""FFmpeg's name of the centre channel, which has the speech of sound with more than two channels."""


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """A line at its time in the video.

    Attributes:
        begin_s: time of the first sample from the first frame of the video, seconds.
        speech: what is said.
    """

    begin_s: Fraction
    speech: Speech


@dataclass(frozen=True, slots=True)
class SceneSound:
    """Sound of a scene, of the sample rate and the channels of the footage; without sound in the footage, of the first line.

    Attributes:
        own: the footage's own sound; None: the footage has none, and the lines stand in silence.
        num_samples: samples of the video.
        layout: FFmpeg's name of the channel layout.
        under: music and effects in these channels, as loud as they lie under the lines; None: only the lines.
        scale: factor of the lines, and of what lies under them.
    """

    own: SoundReader | None
    lines: Sequence[SpokenLine]
    num_samples: int
    sample_rate_hz: int
    channels: int
    layout: str
    under: Speech | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, info: MediaInfo, lines: Sequence[SpokenLine]) -> Self:
        """Return the sound of a scene.

        Args:
            info: the footage.
            lines: the lines, at least one.

        Raises:
            MediaUnsupportedError: the sound of the footage cannot be read.
        """
        own = SoundReader(info.path, origin=info.video.start) if info.audio else None
        first = lines[0].speech
        rate = own.info.sample_rate_hz if own is not None else first.sample_rate_hz
        channels = own.info.channels if own is not None else min(first.channels, 2)
        layout = own.info.layout if own is not None else _LAYOUTS[channels - 1]
        return cls(own, lines, round(info.video.duration * rate), rate, channels, layout)

    def with_mix(self, mix: SoundMix) -> MixedSound:
        """Return the sound with music and effects under the lines. Reads all sounds twice. Blocks.

        Raises:
            MediaUnsupportedError: a file cannot be read.
        """
        stem = sound_file(mix.file).speech()
        scene = self
        if self.own is None:
            rate, channels = max(self.sample_rate_hz, stem.sample_rate_hz), max(self.channels, min(stem.channels, 2))
            samples = round(Fraction(self.num_samples, self.sample_rate_hz) * rate)
            scene = replace(self, num_samples=samples, sample_rate_hz=rate, channels=channels, layout=_LAYOUTS[channels - 1])
        lines = replace(scene, own=None)
        under = ducked(lines.speech(), stem, mix, scene.num_samples)
        peak = max((float(np.abs(chunk).max()) for chunk in replace(lines, under=under)), default=0.0)
        scaled = replace(scene, under=under, scale=1.0 / max(1.0, peak))
        return MixedSound(scaled.speech(), 20 * float(np.log10(max(1.0, peak))))

    def speech(self) -> Speech:
        """Return the sound as the new sound of a video."""
        return Speech(self.sample_rate_hz, self.channels, self)

    def __iter__(self) -> Iterator[Float32]:
        """Yield pieces of the sound, float32 [samples, channels].

        Raises:
            MediaUnsupportedError: a file breaks off.
        """
        waiting = sorted(self.lines, key=lambda line: line.begin_s)
        sounding: list[_Sounding] = []
        under = _Taken(iter(self.under.chunks)) if self.under is not None else None
        begin = 0
        for piece in self._pieces():
            end = begin + len(piece)
            while waiting and self._sample(waiting[0]) < end:
                line = waiting.pop(0)
                sounding.append(_Sounding(self._sample(line), self._fitted(line.speech), self.sample_rate_hz))
            spoken = np.zeros_like(piece)
            for offset, samples in [one.take(begin, end) for one in sounding]:
                spoken[offset : offset + len(samples)] += samples
            own = np.ones((len(piece), 1), np.float32)
            for one in sounding:
                own *= one.footage_gain(begin, end)[:, None]
            if under is not None:
                spoken += under.take(len(piece)) * (1.0 - own)
            yield piece * own + spoken * np.float32(self.scale)
            sounding = [one for one in sounding if not one.is_over(end)]
            begin = end

    def _sample(self, line: SpokenLine) -> int:
        return round(line.begin_s * self.sample_rate_hz)

    def _pieces(self) -> Iterator[Float32]:
        """Yield the footage's sound in pieces of bounded length, and silence after it until the end of the video."""
        done = 0
        for chunk in self.own if self.own is not None else ():
            piece = chunk.samples[: self.num_samples - done]
            if not len(piece):
                return
            done += len(piece)
            yield piece
        while done < self.num_samples:
            silence = np.zeros((min(_PIECE, self.num_samples - done), self.channels), np.float32)
            done += len(silence)
            yield silence

    def _fitted(self, speech: Speech) -> Iterator[Float32]:
        """Yield speech at the rate and with the channels of the scene."""
        if speech.channels == self.channels:
            yield from resampled(speech.chunks, speech.sample_rate_hz, self.sample_rate_hz, self.channels)
            return
        mono = (chunk.mean(axis=1, keepdims=True) for chunk in only_voice(speech).chunks)
        for piece in resampled(mono, speech.sample_rate_hz, self.sample_rate_hz, 1):
            spread = np.zeros((len(piece), self.channels), np.float32)
            spread[:, self._speaking_channels()] = piece
            yield spread

    def _speaking_channels(self) -> list[int]:
        names = [channel.name for channel in av.AudioLayout(self.layout).channels]
        if self.channels > 2 and _CENTRE in names:
            return [names.index(_CENTRE)]
        return list(range(min(self.channels, 2)))


class _Taken:
    """Sound that is taken in pieces of any length.

    Args:
        pieces: the sound, at least as long as all that is taken.
    """

    def __init__(self, pieces: Iterator[Float32]) -> None:
        self._pieces = pieces
        self._held: Float32 | None = None

    def take(self, count: int) -> Float32:
        """Return the next samples."""
        held = [] if self._held is None else [self._held]
        while sum(map(len, held)) < count:
            held.append(next(self._pieces))
        joined = np.concatenate(held)
        self._held = joined[count:]
        return joined[:count]


class _Sounding:
    """A line that sounds in the present piece of a scene.

    Args:
        first: sample of the scene with which the line begins.
        pieces: the line at the rate of the scene.
    """

    def __init__(self, first: int, pieces: Iterator[Float32], sample_rate_hz: int) -> None:
        self._first = first
        self._pieces = pieces
        self._ramp = max(1, round(_RAMP_S * sample_rate_hz))
        self._held: list[Float32] = []
        self._read = first
        self._given = first
        self._end: int | None = None

    def take(self, begin: int, end: int) -> tuple[int, Float32]:
        """Return the samples of the line in a piece of the scene, and their offset in the piece."""
        # The end has to be known a ramp ahead.
        while self._end is None and self._read < end + self._ramp:
            piece = next(self._pieces, None)
            if piece is None:
                self._end = self._read
            else:
                self._held.append(piece)
                self._read += len(piece)
        offset, wanted = self._given - begin, end - self._given
        joined = np.concatenate(self._held) if self._held else np.empty((0, 1), np.float32)
        samples, self._held = joined[:wanted], [joined[wanted:]] if len(joined) > wanted else []
        self._given += len(samples)
        return offset, samples

    def footage_gain(self, begin: int, end: int) -> Float32:
        """Return the factor of the footage's sound in the samples begin to end - 1 of the scene, float32 [end - begin]."""
        at = np.arange(begin, end, dtype=np.float64)
        gain = 1.0 - np.clip((at - self._first) / self._ramp, 0.0, 1.0)
        if self._end is not None:
            gain = np.maximum(gain, 1.0 - np.clip((self._end - at) / self._ramp, 0.0, 1.0))
        return np.asarray(gain, np.float32)

    def is_over(self, end: int) -> bool:
        """Return whether the line has ended before a sample of the scene."""
        return self._end is not None and self._end <= end
