"""Streaming conversion of any rate and channel count to 16 kHz mono, with under 2.5 ms of look-ahead.

A polyphase windowed-sinc filter of our own: a library resampler of like quality holds back 36 to 115 ms in streaming
(it works on blocks of a Fourier transform), which would eat the look-ahead of the whole chain. Every output sample is the
same sequence of additions whatever the chunks, hence the same bits.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from services.audio.types import SAMPLE_RATE_HZ
from services.common.array_types import Float32
from services.common.chassis.calls import charge
from services.common.errors import InvalidRequest

MIN_RATE_HZ: Final = 8_000
MAX_RATE_HZ: Final = 192_000
MAX_CHANNELS: Final = 16
MAX_SAMPLE: Final = 1e6
"""Largest magnitude of a sample: beyond 16-bit integers stored as floats without scaling, and still finite when squared."""
_PHASES_AT_ONCE: Final = 1024
_ZERO_CROSSINGS: Final = 18
_KAISER_BETA: Final = 7.0
_PASSBAND: Final = 0.95
"""Cut-off as a share of the lower of both Nyquist frequencies; the rest is the transition band."""


class MonoResampler:
    """Interleaved PCM in, 16 kHz mono out: y[n] = sum_k h[k] * mean_channels x[floor(n D / U) + k], zero phase.

    Output sample n is at the time of n / 16000 s of the input. Samples before the first and after the last are zero.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        """Design the filter.

        Raises:
            InvalidRequest: a rate outside 8000 to 192000 Hz, or not 1 to 16 channels.
            CallTooLarge: the call that this is done for would hold more than it may.
        """
        if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
            raise InvalidRequest(
                f"config.sample_rate_hz: must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, got {sample_rate_hz}",
                field="config.sample_rate_hz",
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise InvalidRequest(f"config.channels: must be 1 to {MAX_CHANNELS}, got {channels}", field="config.channels")
        divisor = math.gcd(sample_rate_hz, SAMPLE_RATE_HZ)
        self._up = SAMPLE_RATE_HZ // divisor
        self._down = sample_rate_hz // divisor
        self._channels = channels
        self._half = 0
        self._taps = np.ones((1, 1))
        if self._up != self._down:
            cutoff = _PASSBAND * min(sample_rate_hz, SAMPLE_RATE_HZ) / sample_rate_hz  # of the input's Nyquist frequency
            self._half = math.ceil(_ZERO_CROSSINGS / cutoff)
            charge(self._up * (2 * self._half + 1) * self._taps.itemsize)
            self._taps = _polyphase_taps(self._up, self._half, cutoff)
        # Input samples from absolute index `_start`; the left edge sees zeros.
        self._pending: npt.NDArray[np.float64] = np.zeros(self._half)
        self._start = -self._half
        self.num_received = 0
        """Input samples per channel so far."""
        self.num_emitted = 0
        """16 kHz samples given out so far."""

    def push(self, interleaved: Float32) -> Float32:
        """Return all 16 kHz samples that the new input completes.

        Args:
            interleaved: [samples * channels] float32, nominally in [-1, 1].

        Raises:
            InvalidRequest: not a whole number of samples, or NaN, infinity or a number beyond MAX_SAMPLE (the message has the
                sample's index and value).
        """
        if interleaved.ndim != 1 or len(interleaved) % self._channels:
            raise InvalidRequest(
                f"chunk.pcm_f32: {interleaved.size} values are not a whole number of samples of {self._channels} channels",
                field="chunk.pcm_f32",
            )
        usable = np.abs(interleaved) <= MAX_SAMPLE  # false for NaN
        if not usable.all():
            index = int(np.argmin(usable))
            sample, channel = self.num_received + index // self._channels, index % self._channels
            value = float(interleaved[index])
            problem = f"is {value:g}, beyond {MAX_SAMPLE:g}" if math.isfinite(value) else f"is not a finite number ({value})"
            raise InvalidRequest(
                f"chunk.pcm_f32: sample {sample} of channel {channel} {problem}; samples nominally lie in [-1, 1]",
                field="chunk.pcm_f32",
            )
        frames = interleaved.reshape(-1, self._channels).astype(np.float64)
        mono = frames[:, 0].copy()
        for channel in range(1, self._channels):  # one addition after the other: the same bits for any chunk length
            mono += frames[:, channel]
        mono /= self._channels
        self.num_received += len(mono)
        self._pending = np.concatenate([self._pending, mono])
        available = self._start + len(self._pending)
        # Output n reads inputs up to floor(n D / U) + half.
        end = max(self.num_emitted, ((available - self._half) * self._up - 1) // self._down + 1)
        return self._emit(end)

    def finish(self) -> Float32:
        """Return the rest: afterwards ceil(input samples * 16000 / rate) samples have been given out."""
        end = -(-self.num_received * self._up // self._down)
        self._pending = np.concatenate([self._pending, np.zeros(self._half + 1)])
        return self._emit(end)

    def _emit(self, end: int) -> Float32:
        if end <= self.num_emitted:
            return np.zeros(0, np.float32)
        positions = np.arange(self.num_emitted, end, dtype=np.int64) * self._down
        first = positions // self._up - self._half - self._start
        taps = self._taps[positions % self._up]
        total = np.zeros(len(positions))
        # The loop runs over taps so that each output's additions have one order: chunk invariance to the bit.
        for tap in range(self._taps.shape[1]):
            total += taps[:, tap] * self._pending[first + tap]
        self.num_emitted = end
        keep = end * self._down // self._up - self._half - self._start
        self._pending = self._pending[keep:].copy()
        self._start += keep
        return total.astype(np.float32)


def _polyphase_taps(up: int, half: int, cutoff: float) -> npt.NDArray[np.float64]:
    """Return kaiser-windowed sinc for each of `up` output phases, [up, 2 * half + 1], each phase with unit gain at 0 Hz."""
    taps = np.empty((up, 2 * half + 1))
    for begin in range(0, up, _PHASES_AT_ONCE):  # with odd rates the intermediate arrays would take ten times as much as the taps
        phases = np.arange(begin, min(begin + _PHASES_AT_ONCE, up)) / up
        taps[begin : begin + len(phases)] = _taps_of_phases(phases, half, cutoff)
    return taps


def _taps_of_phases(phases: npt.NDArray[np.float64], half: int, cutoff: float) -> npt.NDArray[np.float64]:
    offsets = np.arange(-half, half + 1)[None, :] - phases[:, None]
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1.0 - (offsets / (half + 1)) ** 2, 0.0, 1.0))) / np.i0(_KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * offsets) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True))
