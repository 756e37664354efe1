"""Choice of the channels of a sound that hold the voice.

The mean of all channels is the usual choice. The mean fails where channels cancel each other out (a right channel with inverted
polarity), and where most channels are silent (one microphone of a recorder with four inputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.media.sound import Speech
from services.common.array_types import Float32, Float64
from services.common.texts import Option, Text

USUAL_CHANNELS: Final = frozenset({1, 2, 6, 8})
"""Channels of mono, stereo, 5.1 and 7.1. A video gets these as they are; of other sounds, a video gets the voice."""
_CENTRE: Final = 2
_LOW: Final = 3
"""Channels of dialogue and of low-frequency effects in 5.1 and 7.1."""
_WEAK: Final = 1 / 8
"""A mean of all channels with less than this share of the loudest channel's power is no voice. A stereo sound with one silent
channel has 1/4."""
_SILENT: Final = 1 / 100
"""A channel whose loudest moment has less than this share of the power of the loudest moment of all channels is silent."""
_OPPOSITE: Final = -0.5
"""A channel with less correlation to the loudest channel would take sound away from the loudest channel."""
_ENOUGH_S: Final = 30
"""Seconds of sound that decide the choice of a sound with the usual channels."""
_SOUND: Final = 1e-6
"""Least mean square of a piece that is sound: -60 dB of full scale."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Channels whose mean is the voice.

    Attributes:
        channels: numbers of the channels, from 0, in order.
        total: number of channels of the sound.
    """

    channels: tuple[int, ...]
    total: int

    @property
    def is_mean(self) -> bool:
        """Whether the voice is the mean of all channels."""
        return len(self.channels) == self.total

    def of(self, samples: Float32) -> Float32:
        """Return the voice in a piece of the sound: float32 [n] of float32 [n, channels]."""
        return np.asarray(samples[:, self.channels].mean(axis=1), np.float32)

    @property
    def words(self) -> str:
        """The choice as a sentence; empty: the voice is the mean of all channels."""
        if self.is_mean:
            return ""
        taken = " and ".join(str(channel + 1) for channel in self.channels)
        which = f"channel {taken} is" if len(self.channels) == 1 else f"the mean of the channels {taken} is"
        kept = "the video keeps all channels" if self.total in USUAL_CHANNELS else "the video gets this voice on both channels"
        return Text(
            "the speech has {total} channels, whose mean loses the voice because channels are silent or cancel each other out: "
            "{which} taken as the voice, and {kept}; choose another with {channel}",
            total=self.total,
            which=which,
            kept=kept,
            channel=Option("audio_channel"),
        )


def voice_of(speech: Speech) -> Voice:
    """Return the channels of a sound that hold the voice. Reads 30 s of a sound with the usual channels, and all of others.

    Raises:
        MediaUnsupportedError: the sound cannot be read.
    """
    count = speech.channels
    if count == 1:
        return Voice((0,), 1)
    products, loudest = np.zeros((count, count)), np.zeros(count)
    audible = 0
    for chunk in speech.chunks:
        piece = np.nan_to_num(chunk).astype(np.float64)
        own = piece.T @ piece
        products += own
        power = np.diag(own) / max(1, len(piece))
        loudest = np.maximum(loudest, power)
        audible += len(piece) if power.max() > _SOUND else 0
        if count in USUAL_CHANNELS and audible >= _ENOUGH_S * speech.sample_rate_hz:
            break
    return Voice(_chosen(products, loudest), count)


def _chosen(products: Float64, loudest: Float64) -> tuple[int, ...]:
    """Return the channels of the voice.

    Args:
        products: float64 [N, N], sums of the products of two channels' samples.
        loudest: float64 [N], power of each channel in its loudest moment.
    """
    count = len(loudest)
    surround = count > 2 and count in USUAL_CHANNELS
    if surround:
        products[_LOW], products[:, _LOW] = 0.0, 0.0
    energy = np.diag(products)
    best = int(energy.argmax())
    if count in USUAL_CHANNELS and products.sum() / count**2 >= _WEAK * energy[best]:
        return tuple(range(count))
    sounding = loudest >= _SILENT * loudest.max()
    if count in USUAL_CHANNELS:
        return (_CENTRE if surround and sounding[_CENTRE] else best,)
    correlation = products[best] / np.sqrt(np.maximum(energy * energy[best], np.finfo(np.float64).tiny))
    return tuple(np.flatnonzero(sounding & (correlation >= _OPPOSITE)).tolist())


def with_usual_channels(sound: Speech) -> Speech:
    """Return a sound that a video can have. Of a sound with other channels than the usual ones, that is the voice on two channels.

    Raises:
        MediaUnsupportedError: the sound cannot be read.
    """
    if sound.channels in USUAL_CHANNELS:
        return sound
    return Speech(sound.sample_rate_hz, 2, _Voiced(sound, voice_of(sound), 2))


def only_voice(sound: Speech) -> Speech:
    """Return the voice of a sound, in one channel. A sound whose voice is the mean of all channels is returned as it is.

    Raises:
        MediaUnsupportedError: the sound cannot be read.
    """
    voice = voice_of(sound)
    return sound if voice.is_mean else Speech(sound.sample_rate_hz, 1, _Voiced(sound, voice, 1))


@dataclass(frozen=True, slots=True)
class _Voiced:
    """The voice of a sound on several channels, float32 [samples, channels] each, made anew in each iteration."""

    sound: Speech
    voice: Voice
    channels: int

    def __iter__(self) -> Iterator[Float32]:
        return (np.repeat(self.voice.of(chunk)[:, None], self.channels, axis=1) for chunk in self.sound.chunks)
