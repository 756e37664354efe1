"""Music and effects under new speech: level, ducking while somebody speaks, and no clipping.

The sound of the video is (speech + level * duck(t) * stem) * scale. The stem is a mix without dialogue; its first sample belongs to
the first frame of the video, and the sound ends with the video.

- `duck` falls by `duck_db` while a block of 10 ms of the speech is louder than the loudest block of the speech less _RANGE_DB. It
  follows one-pole filters in decibels: time constant _ATTACK_S downwards, _RELEASE_S upwards.
- `scale` is 1, or 1 / peak if the sum would exceed full scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from gateway.media.choices import DUCK_DB
from gateway.media.sound import Speech, resampled
from gateway.media.voice import with_usual_channels
from services.common.array_types import Bool, Float32, Float64

_RANGE_DB: Final = 35.0
_ATTACK_S: Final = 0.05
_RELEASE_S: Final = 0.4
_BLOCKS_PER_S: Final = 100
_CENTRE: Final = 2
"""Channel of dialogue in 5.1 and 7.1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundMix:
    """Music and effects of a video.

    Attributes:
        file: sound file, or video with sound, without dialogue.
        level_db: gain of the stem, LEAST_LEVEL_DB to MOST_LEVEL_DB.
        duck_db: further decibels by which the stem is quieter under speech, 0 to MOST_DUCK_DB.
    """

    file: Path
    level_db: float = 0.0
    duck_db: float = DUCK_DB


@dataclass(frozen=True, slots=True)
class MixedSound:
    """Sound of a video with music and effects.

    Attributes:
        sound: speech with music and effects, as long as the video to the sample.
        scale_db: decibels by which all sound was made quieter so that no sample exceeds full scale; 0: none.
    """

    sound: Speech
    scale_db: float


def mixed(speech: Speech, stem: Speech, mix: SoundMix, duration: Fraction) -> MixedSound:
    """Return speech with music and effects under it. Reads both twice. Blocks.

    Rate and number of channels are the larger ones of the two; of channels without a usual layout, the voice is taken. Speech of
    one channel goes to the centre of 5.1 and 7.1.

    Args:
        stem: sound of `mix.file`.
        duration: length of the video, seconds.

    Raises:
        MediaUnsupportedError: the speech or the stem cannot be read.
    """
    speech, stem = with_usual_channels(speech), with_usual_channels(stem)
    channels = max(speech.channels, stem.channels)
    rate = max(speech.sample_rate_hz, stem.sample_rate_hz)
    blocks = _Mixed(speech, stem, mix, rate, channels, round(duration * rate))
    blocks.threshold = blocks.loudest_block() * 10 ** (-_RANGE_DB / 20)
    peak = max((float(np.abs(chunk).max()) for chunk in blocks), default=0.0)
    if peak > 1.0:
        blocks.scale = 1.0 / peak
    return MixedSound(Speech(rate, channels, blocks), 20 * float(np.log10(max(1.0, peak))))


def ducked(speech: Speech, stem: Speech, mix: SoundMix, length: int) -> Speech:
    """Return music and effects alone, as loud as they lie under speech, with the rate and the channels of the speech. Reads both
    once, and both again in each iteration. Blocks.

    Args:
        stem: sound of `mix.file`.
        length: samples of the result.

    Raises:
        MediaUnsupportedError: the speech or the stem cannot be read.
    """
    blocks = _Mixed(speech, stem, mix, speech.sample_rate_hz, speech.channels, length, alone=True)
    blocks.threshold = blocks.loudest_block() * 10 ** (-_RANGE_DB / 20)
    return Speech(speech.sample_rate_hz, speech.channels, blocks)


class _Mixed:
    """Chunks of the mixed sound, float32 [samples, channels], one second each, made anew in each iteration.

    Args:
        alone: leave the speech out.
    """

    def __init__(
        self, speech: Speech, stem: Speech, mix: SoundMix, rate: int, channels: int, length: int, *, alone: bool = False
    ) -> None:
        self._speech, self._stem, self._mix, self._alone = speech, stem, mix, alone
        self._rate, self._channels, self._length = rate, channels, length
        self._block = rate // _BLOCKS_PER_S
        self.threshold = np.inf
        self.scale = 1.0

    def loudest_block(self) -> float:
        """Return the root mean square of the loudest block of the speech."""
        return max((float(_levels(chunk, self._block).max()) for chunk in self._chunks(self._speech)), default=0.0)

    def __iter__(self) -> Iterator[Float32]:
        level = 10 ** (self._mix.level_db / 20)
        ducked_db = 0.0
        for voice, music in zip(self._chunks(self._speech), self._chunks(self._stem), strict=True):
            speaks = _levels(voice, self._block) > self.threshold
            gains = self._gains(ducked_db, speaks)
            ducked_db = gains[-1]
            at = np.arange(len(voice)) / self._block
            curve = np.interp(at, np.arange(len(gains)), gains)
            under = music * (level * 10 ** (-curve / 20))[:, None]
            yield np.asarray((under if self._alone else voice + under) * self.scale, np.float32)

    def _gains(self, ducked_db: float, speaks: Bool) -> list[float]:
        """Return the ducking at the beginning of every block, and at the end of the last one, decibels."""
        down, up = (1 - float(np.exp(-1 / (_BLOCKS_PER_S * seconds))) for seconds in (_ATTACK_S, _RELEASE_S))
        gains = [ducked_db]
        for speaking in speaks:
            target = self._mix.duck_db if speaking else 0.0
            ducked_db += (target - ducked_db) * (down if target > ducked_db else up)
            gains.append(ducked_db)
        return gains

    def _chunks(self, sound: Speech) -> Iterator[Float32]:
        """Yield a sound in this rate and these channels: a second each, the last one shorter, with silence behind its end."""
        size, left = self._block * _BLOCKS_PER_S, self._length
        held: list[Float32] = []
        count = 0
        spread = (_spread(np.nan_to_num(chunk), self._channels) for chunk in sound.chunks)
        for piece in resampled(spread, sound.sample_rate_hz, self._rate, self._channels):
            held.append(piece)
            count += len(piece)
            while count >= size and left:
                joined = np.concatenate(held)
                taken, held = joined[: min(size, left)], [joined[size:]]
                count -= size
                left -= len(taken)
                yield taken
            if not left:
                return
        while left:
            rest = np.concatenate([*held, np.zeros((size, self._channels), np.float32)])[: min(size, left)]
            held, left = [], left - len(rest)
            yield rest


def _levels(chunk: Float32, block: int) -> Float64:
    """Return the root mean square of each block of a chunk, over all channels, float64 [blocks]. The last block may be shorter."""
    squares = (chunk.astype(np.float64) ** 2).mean(axis=1)
    begins = np.arange(0, len(squares), block)
    return np.asarray(np.sqrt(np.add.reduceat(squares, begins) / np.diff([*begins, len(squares)])))


def _spread(samples: Float32, channels: int) -> Float32:
    """Return samples in `channels` channels: usually 1, 2, 6 or 8."""
    have = samples.shape[1]
    if have == channels:
        return samples
    if channels <= 2:
        return np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
    wide = np.zeros((len(samples), channels), np.float32)
    if have == 1:
        wide[:, _CENTRE] = samples[:, 0]
    else:
        wide[:, :2] = samples if have == 2 else samples.mean(axis=1, keepdims=True)
    return wide
