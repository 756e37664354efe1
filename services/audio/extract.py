"""Features of the video frames of a timeline, streaming or of a whole recording."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from services.audio.kinds import ALL_KINDS, KINDS
from services.audio.models import AudioModels
from services.audio.resample import MonoResampler
from services.audio.stream import RowBlock, RowStream
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME, SAMPLE_RATE_HZ, FeatureBlock
from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.common.errors import InvalidRequest
from services.common.wire.timeline import Timeline

_SLICE_S: Final = 1
"""Longest slice in which pushed sound is worked on, seconds, so that the size of a push does not set the memory."""


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
    ) -> None:
        """Start a stream.

        Args:
            models: the loaded networks.
            sample_rate_hz: sample rate of the PCM, 8000 to 192000.
            channels: channels of the PCM, 1 to 16. They are averaged.
            timeline: when each frame is shown; time zero is the first sample.
            kinds: kinds of features to compute, names of KINDS.
            num_frames: how many frames to answer. 0: the frames that are shown before the speech ends.

        Raises:
            InvalidRequest: a rate, channel count or number of frames is out of range, no kind is given, or a kind is unknown.
        """
        if not kinds:
            raise InvalidRequest("kinds: ask for at least one kind of feature", field="config.kinds")
        if unknown := kinds - ALL_KINDS:
            raise InvalidRequest(f"kinds: there is no kind {min(unknown)!r}, only {', '.join(KINDS)}", field="config.kinds")
        known = timeline.num_frames
        if num_frames < 0 or (known is not None and num_frames > known):
            raise InvalidRequest(f"num_frames: {num_frames} is not within the timeline's {known} frames", field="config.num_frames")
        self._resampler = MonoResampler(sample_rate_hz, channels)
        self._rows = RowStream(models, kinds)
        self._rate_hz, self._channels = sample_rate_hz, channels
        self._timeline, self._kinds = timeline, kinds
        self._wanted = num_frames
        self._known = known
        self._next_frame = 0
        self._blocks: deque[RowBlock] = deque()
        self._silent = RowBlock(-1, {kind: models[kind].silence for kind in kinds})
        self._finished = False

    def push(self, first_sample: int, interleaved: Float32) -> list[FeatureBlock]:
        """Return the blocks that `pushed` yields for this chunk."""
        return list(self.pushed(first_sample, interleaved))

    def pushed(self, first_sample: int, interleaved: Float32) -> Iterator[FeatureBlock]:
        """Yield the blocks that this chunk completes. The caller reads them to the end before the next chunk.

        Args:
            first_sample: index of the chunk's first sample per channel since the start of the stream.
            interleaved: float32 [samples * channels], nominally in [-1, 1].

        Raises:
            InvalidRequest: the chunk does not follow the one before it, is not a whole number of samples, or has NaN or
                infinity; the message names what was expected.
            Cancelled: the current call is over. This is checked once per second of sound.
        """
        expected = self._resampler.num_received
        if self._finished or first_sample != expected:
            raise InvalidRequest(f"chunk.first_sample: expected {expected}, got {first_sample}", field="chunk.first_sample")
        size = self._rate_hz * self._channels * _SLICE_S
        for start in range(0, max(len(interleaved), 1), size):
            check_still_wanted()
            samples = self._resampler.push(interleaved[start : start + size])
            if not self._exhausted():
                self._blocks.extend(self._rows.push(samples))
            yield from self._frames()

    def finish(self) -> Iterator[FeatureBlock]:
        """Yield the remaining blocks. Silence follows the last sample for as long as frames are wanted.

        Raises:
            Cancelled: the current call is over. This is checked between blocks.
        """
        self._finished = True
        rest = self._resampler.finish()
        if not self._exhausted():
            self._blocks.extend(self._rows.push(rest))
        yield from self._frames()
        silence = np.zeros(SAMPLE_RATE_HZ // 5, np.float32)
        while self._due():
            check_still_wanted()
            self._blocks.extend(self._rows.push(silence))
            yield from self._frames()

    def _exhausted(self) -> bool:
        """Return whether all frames that can be wanted have been answered."""
        limit = min(self._wanted or math.inf, math.inf if self._known is None else self._known)
        return self._next_frame >= limit

    def _due(self) -> bool:
        """Return whether a further frame is to be answered, by the samples so far."""
        if self._exhausted():
            return False
        duration = Fraction(self._resampler.num_received, self._rate_hz)
        return bool(self._wanted) or self._timeline.seconds(self._next_frame) < duration

    def _frames(self) -> list[FeatureBlock]:
        found: list[FeatureBlock] = []
        while not self._exhausted():
            position = self._timeline.seconds(self._next_frame) * ROWS_PER_SECOND
            first_row = math.floor(position)
            share = float(position - first_row)
            last_row = first_row + ROWS_PER_VIDEO_FRAME - (0 if share else 1)
            while self._blocks and (self._blocks[0].index + 1) * ROWS_PER_VIDEO_FRAME <= first_row:
                self._blocks.popleft()
            rows_end = (self._blocks[-1].index + 1) * ROWS_PER_VIDEO_FRAME if self._blocks else 0
            if not self._due() or last_row >= rows_end:
                return found
            found.append(self._block(first_row, share))
            self._next_frame += 1
        self._blocks.clear()
        return found

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
        InvalidRequest: as `FeatureExtractor`.
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
