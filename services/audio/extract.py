"""Features of the video frames of a timeline, streaming or of a whole recording.

Sound of any rate becomes 16 kHz mono with under 2.5 ms of look-ahead, then rows of the acoustic grid, then features of frames.
Rows are computed in fixed blocks at absolute rows, so the same samples in other chunks give the same bytes.

The resampler is a polyphase windowed-sinc filter of our own: a library resampler of like quality holds back 36 to 115 ms in
streaming (it works on blocks of a Fourier transform), longer than the look-ahead of the whole chain. Every output sample is the
same sequence of additions for any chunks, so the bits are the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.audio.models import ALL_KINDS, KINDS, AudioModels
from services.audio.spectral import SpectralStream, cepstra
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME, SAMPLE_RATE_HZ, FeatureBlock, SoundRows
from services.audio.voice_activity import SPEECH_PROBABILITY, STATE_S, VoiceRows, VoiceState
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.server.call_context import charge, check_not_cancelled
from services.common.wire.timeline import Timeline

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
_SLICE_S: Final = 1
"""Longest slice in which pushed sound is worked on, seconds, so that the size of a push does not set the memory."""


class MonoResampler:
    """Resampler of interleaved PCM to 16 kHz mono: y[n] = sum_k h[k] * mean_channels x[floor(n D / U) + k], zero phase.

    Output sample n is at the time of n / 16000 s of the input. Samples before the first and after the last are zero.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        """Design the filter.

        Raises:
            InvalidRequestError: a rate outside 8000 to 192000 Hz, or not 1 to 16 channels.
            CallTooLargeError: the call that needs the filter would hold more memory than a call may.
        """
        if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
            raise InvalidRequestError(
                f"config.sample_rate_hz: must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, got {sample_rate_hz}",
                field="config.sample_rate_hz",
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise InvalidRequestError(f"config.channels: must be 1 to {MAX_CHANNELS}, got {channels}", field="config.channels")
        divisor = math.gcd(sample_rate_hz, SAMPLE_RATE_HZ)
        self._up = SAMPLE_RATE_HZ // divisor
        self._down = sample_rate_hz // divisor
        self._channels, self._rate_hz = channels, sample_rate_hz
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

    def begin_at(self, second: int) -> None:
        """Take sound from `second` on as the first sound. Samples before `second` are zero."""
        self.num_received, self.num_emitted = second * self._rate_hz, second * SAMPLE_RATE_HZ
        self._start = self.num_received - self._half

    def push(self, interleaved: Float32) -> Float32:
        """Return all 16 kHz samples that the new input completes.

        Args:
            interleaved: [samples * channels] float32, nominally in [-1, 1].

        Raises:
            InvalidRequestError: not a whole number of samples, or NaN, infinity or a number beyond MAX_SAMPLE (the message has the
                sample's index and value).
        """
        if interleaved.ndim != 1 or len(interleaved) % self._channels:
            raise InvalidRequestError(
                f"chunk.pcm_f32: {interleaved.size} values are not a whole number of samples of {self._channels} channels",
                field="chunk.pcm_f32",
            )
        usable = np.abs(interleaved) <= MAX_SAMPLE  # false for NaN
        if not usable.all():
            index = int(np.argmin(usable))
            sample, channel = self.num_received + index // self._channels, index % self._channels
            value = float(interleaved[index])
            problem = f"is {value:g}, beyond {MAX_SAMPLE:g}" if math.isfinite(value) else f"is not a finite number ({value})"
            raise InvalidRequestError(
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


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Four rows of the acoustic grid, rows 4 k to 4 k + 3.

    Attributes:
        index: k.
        rows: float32 [4, ...] for each kind by name.
    """

    index: int
    rows: Mapping[str, Float32]


class RowStream:
    """Samples in, row blocks out, in order and without gap."""

    def __init__(self, models: AudioModels, kinds: frozenset[str]) -> None:
        self._spectral = SpectralStream()
        self._sources = {kind: models[kind].new_source() for kind in sorted(kinds)}
        self._next_block = 0

    @property
    def voice(self) -> VoiceRows:
        """The rows of the speech probability, which must be one of the kinds."""
        rows = self._sources[SPEECH_PROBABILITY.name]
        assert isinstance(rows, VoiceRows)
        return rows

    def resume(self, state: VoiceState) -> None:
        """Go on from a state of the detector. The samples begin STATE_S before the state."""
        self.voice.resume(state)
        self._next_block = (state.second - STATE_S) * ROWS_PER_SECOND // ROWS_PER_VIDEO_FRAME

    def push(self, samples: Float32) -> list[RowBlock]:
        """Return the blocks that new 16 kHz samples complete. A block is complete once all its kinds are there."""
        mel = self._spectral.push(samples)
        sound = SoundRows(samples, mel, cepstra(mel))
        for source in self._sources.values():
            source.push(sound)
        count = min(source.num_ready for source in self._sources.values()) // ROWS_PER_VIDEO_FRAME
        if count <= 0:
            return []
        taken = {kind: source.take(count) for kind, source in self._sources.items()}
        first, self._next_block = self._next_block, self._next_block + count
        return [RowBlock(first + block, {kind: rows[block] for kind, rows in taken.items()}) for block in range(count)]


class ExtractorState(NamedTuple):
    """State of a FeatureExtractor: voice, the state of the detector, and the next frame that is answered.

    No other feature needs a state, because an extractor begins STATE_S before the state. A window of the speech encoder sees 3 s
    before its first answered frame at most, and windows begin at multiples of two seconds, as states do. All other features see
    at most 3.6 s before their rows.
    """

    voice: VoiceState
    next_frame: int


class FeatureExtractor:
    """PCM in at any rate, one feature block per video frame out. The sizes of the chunks change no bit of the answer.

    Frame n's block comes out once the samples up to 60 ms after the frame's four rows are there. Rows before time zero and after
    the last sample are silence. Memory: at most four seconds of cepstra, 128 ms of PCM and a second of finished rows.
    """

    def __init__(
        self,
        models: AudioModels,
        *,
        sample_rate_hz: int,
        channels: int,
        timeline: Timeline,
        kinds: frozenset[str] = ALL_KINDS,
        num_frames: int = 0,
        resume: ExtractorState | None = None,
    ) -> None:
        """Start a stream.

        Args:
            models: the loaded networks.
            sample_rate_hz: sample rate of the PCM, 8000 to 192000.
            channels: channels of the PCM, 1 to 16. They are averaged.
            timeline: when each frame is shown; time zero is the first sample.
            kinds: kinds of features to compute, names of KINDS.
            num_frames: how many frames to answer. 0: the frames that are shown before the speech ends.
            resume: state of an extractor with the same arguments. The chunks begin with sample `resume_from(state)`.

        Raises:
            InvalidRequestError: a rate, channel count or number of frames is out of range, no kind is given, or a kind is unknown.
        """
        if not kinds:
            raise InvalidRequestError("kinds: ask for at least one kind of feature", field="config.kinds")
        if unknown := kinds - ALL_KINDS:
            raise InvalidRequestError(f"kinds: there is no kind {min(unknown)!r}, only {', '.join(KINDS)}", field="config.kinds")
        timeline_frames = timeline.num_frames
        if num_frames < 0 or (timeline_frames is not None and num_frames > timeline_frames):
            raise InvalidRequestError(
                f"num_frames: {num_frames} is not within the timeline's {timeline_frames} frames", field="config.num_frames"
            )
        self._resampler = MonoResampler(sample_rate_hz, channels)
        self._rows = RowStream(models, kinds)
        self._rate_hz, self._channels = sample_rate_hz, channels
        self._timeline, self._kinds = timeline, kinds
        self._wanted = num_frames
        self._timeline_frames = timeline_frames
        self._next_frame = 0
        self._blocks: deque[RowBlock] = deque()
        self._silent = RowBlock(-1, {kind: models[kind].silence for kind in kinds})
        self._finished = False
        if resume is not None:
            self._resampler.begin_at(resume.voice.second - STATE_S)
            self._rows.resume(resume.voice)
            self._next_frame = resume.next_frame

    def resume_from(self, state: ExtractorState) -> int:
        """Return the sample per channel with which an extractor that goes on from a state begins."""
        return (state.voice.second - STATE_S) * self._rate_hz

    def new_state(self, next_frame: int) -> ExtractorState | None:
        """Return the newest state that is not after a frame; None: there is none since the last one, or no such frame is due.

        Args:
            next_frame: first frame that the caller has not read yet.
        """
        state, states = None, self._rows.voice.states
        while states and next_frame < self._limit and states[0].second <= self._timeline.seconds(next_frame):
            state = ExtractorState(states.popleft(), next_frame)
        return state

    def push(self, first_sample: int, interleaved: Float32) -> list[FeatureBlock]:
        """Return the blocks that `pushed` yields for this chunk."""
        return list(self.pushed(first_sample, interleaved))

    def pushed(self, first_sample: int, interleaved: Float32) -> Iterator[FeatureBlock]:
        """Yield the blocks that this chunk completes. The caller reads them to the end before the next chunk.

        Args:
            first_sample: index of the chunk's first sample per channel since the start of the stream.
            interleaved: float32 [samples * channels], nominally in [-1, 1].

        Raises:
            InvalidRequestError: the chunk does not follow the one before it, is not a whole number of samples, or has NaN or
                infinity; the message names what was expected.
            WorkCancelledError: the current call is over. This is checked once per second of sound.
        """
        expected = self._resampler.num_received
        if self._finished or first_sample != expected:
            raise InvalidRequestError(f"chunk.first_sample: expected {expected}, got {first_sample}", field="chunk.first_sample")
        size = self._rate_hz * self._channels * _SLICE_S
        for start in range(0, max(len(interleaved), 1), size):
            check_not_cancelled()
            samples = self._resampler.push(interleaved[start : start + size])
            if not self._exhausted():
                self._blocks.extend(self._rows.push(samples))
            yield from self._frames()

    def finish(self) -> Iterator[FeatureBlock]:
        """Yield the remaining blocks. Silence follows the last sample for as long as frames are wanted.

        Raises:
            WorkCancelledError: the current call is over. This is checked between blocks.
        """
        self._finished = True
        rest = self._resampler.finish()
        if not self._exhausted():
            self._blocks.extend(self._rows.push(rest))
        yield from self._frames()
        silence = np.zeros(SAMPLE_RATE_HZ // 5, np.float32)
        while self._due():
            check_not_cancelled()
            self._blocks.extend(self._rows.push(silence))
            yield from self._frames()

    @property
    def _limit(self) -> float:
        """Number of frames that can be wanted."""
        return min(self._wanted or math.inf, math.inf if self._timeline_frames is None else self._timeline_frames)

    def _exhausted(self) -> bool:
        """Return whether all frames that can be wanted have been answered."""
        return self._next_frame >= self._limit

    def _due(self) -> bool:
        """Return whether a further frame is to be answered, by the samples so far."""
        if self._exhausted():
            return False
        duration = Fraction(self._resampler.num_received, self._rate_hz)
        return bool(self._wanted) or self._timeline.seconds(self._next_frame) < duration

    def _frames(self) -> list[FeatureBlock]:
        blocks: list[FeatureBlock] = []
        while not self._exhausted():
            position = self._timeline.seconds(self._next_frame) * ROWS_PER_SECOND
            first_row = math.floor(position)
            share = float(position - first_row)
            last_row = first_row + ROWS_PER_VIDEO_FRAME - (0 if share else 1)
            while self._blocks and (self._blocks[0].index + 1) * ROWS_PER_VIDEO_FRAME <= first_row:
                self._blocks.popleft()
            rows_end = (self._blocks[-1].index + 1) * ROWS_PER_VIDEO_FRAME if self._blocks else 0
            if not self._due() or last_row >= rows_end:
                return blocks
            blocks.append(self._block(first_row, share))
            self._next_frame += 1
        self._blocks.clear()
        return blocks

    def _block(self, first_row: int, share: float) -> FeatureBlock:
        """Return the four rows from `first_row` on, each mixed with its successor by `share` in [0, 1)."""
        rows = [self._row(first_row + offset) for offset in range(ROWS_PER_VIDEO_FRAME + (1 if share else 0))]

        def mixed(values: list[Float32]) -> Float32:
            stacked = np.stack(values)
            if not share:
                return stacked
            return stacked[:-1] * np.float32(1.0 - share) + stacked[1:] * np.float32(share)

        features = {kind: KINDS[kind].of_frame(mixed([block.rows[kind][row] for block, row in rows])) for kind in self._kinds}
        return FeatureBlock(self._next_frame, features)

    def _row(self, row: int) -> tuple[RowBlock, int]:
        if row < 0:
            return self._silent, 0
        block, inner = divmod(row, ROWS_PER_VIDEO_FRAME)
        return self._blocks[block - self._blocks[0].index], inner


def collect(blocks: Sequence[FeatureBlock], kinds: Collection[str]) -> dict[str, Float32]:
    """Return features of consecutive frames by kind, float32 [T, ...]; T is 0 where there are no blocks."""
    if not blocks:
        return {kind: np.zeros((0, *KINDS[kind].frame_shape), np.float32) for kind in kinds}
    return {kind: np.stack([block.features[kind] for block in blocks]) for kind in kinds}


def extract_features(
    samples: Float32,
    sample_rate_hz: int,
    timeline: Timeline,
    kinds: frozenset[str] = ALL_KINDS,
    *,
    models: AudioModels | None = None,
    num_frames: int = 0,
) -> dict[str, Float32]:
    """Return features of a whole recording by kind, float32 [T, ...]: the same bits that the stream gives.

    Args:
        samples: float32 [samples] or [samples, channels], nominally in [-1, 1].
        sample_rate_hz: 8000 to 192000.
        timeline: when each frame is shown.
        kinds: kinds of features to compute, names of KINDS.
        models: loaded networks. None loads the committed ones (tens of milliseconds).
        num_frames: how many frames to answer. 0: the frames that are shown before the recording ends.

    Raises:
        InvalidRequestError: as `FeatureExtractor`.
    """
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    extractor = FeatureExtractor(
        models or AudioModels(),
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        timeline=timeline,
        kinds=kinds,
        num_frames=num_frames,
    )
    blocks = extractor.push(0, np.ascontiguousarray(samples, dtype=np.float32).reshape(-1))
    blocks.extend(extractor.finish())
    return collect(blocks, kinds)
