"""Features of the video frames of a timeline, streaming or of a whole recording."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np

from services.audio.features import MEL_FLOOR
from services.audio.models import AudioModels
from services.audio.phones import NUM_PHONES, SILENCE
from services.audio.resample import MonoResampler
from services.audio.stream import RowBlock, RowStream
from services.audio.types import (
    ALL_KINDS,
    MFCC_WIDTH,
    NUM_MELS,
    ROWS_PER_SECOND,
    ROWS_PER_VIDEO_FRAME,
    SAMPLE_RATE_HZ,
    AudioFeatures,
    FeatureBlock,
    FeatureKind,
    FloatArray,
)
from services.audio.windows import silent_rows
from services.common.calls import check_still_wanted
from services.common.errors import InvalidRequest
from services.common.timeline import Timeline

_SLICE_S: Final = 1
"""A push is worked off in slices of at most this many seconds, so that its size does not set the memory."""


class FeatureExtractor:
    """PCM in at any rate, one feature block a video frame out; chunk sizes change no bit of the answer.

    Frame n's block comes out once the samples up to 60 ms after its four rows are there. Rows before time zero and after the
    last sample are silence. Memory: at most four seconds of cepstra, 128 ms of PCM and a second of finished rows.
    """

    def __init__(
        self,
        models: AudioModels,
        *,
        sample_rate_hz: int,
        channels: int,
        timeline: Timeline,
        kinds: frozenset[FeatureKind] = ALL_KINDS,
        num_frames: int = 0,
    ) -> None:
        """Start a stream.

        Args:
            models: the loaded networks.
            sample_rate_hz: of the PCM, 8000 to 192000.
            channels: of the PCM, 1 to 16; they are averaged.
            timeline: when each frame is shown; time zero is the first sample.
            kinds: what is asked for; the rest is None in the blocks.
            num_frames: how many frames to answer; 0: those shown before the speech ends.

        Raises:
            InvalidRequest: a rate, channel count or number of frames out of range, or no kind at all.
        """
        if not kinds:
            raise InvalidRequest("kinds: ask for at least one kind of feature", field="config.kinds")
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
        self._silent = _silent_block(models)
        self._finished = False

    def push(self, first_sample: int, interleaved: FloatArray) -> list[FeatureBlock]:
        """Blocks that this chunk completes, as of `pushed`."""
        return list(self.pushed(first_sample, interleaved))

    def pushed(self, first_sample: int, interleaved: FloatArray) -> Iterator[FeatureBlock]:
        """Blocks that this chunk completes, one after another: to be read to the end before the next chunk comes.

        Args:
            first_sample: index (a channel) of the chunk's first sample since the start of the stream.
            interleaved: [samples * channels] float32, nominally in [-1, 1].

        Raises:
            InvalidRequest: the chunk does not follow the one before it, is not a whole number of samples, or has NaN or
                infinity; the message names what was expected.
            Cancelled: the call that this is done for is over; looked at once a second of sound.
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
        """The blocks still owed: silence follows the last sample for as long as frames are wanted.

        Raises:
            Cancelled: the call that this is done for is over; looked at between blocks.
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
        """Whether all frames that will ever be wanted are out."""
        limit = min(self._wanted or math.inf, math.inf if self._known is None else self._known)
        return self._next_frame >= limit

    def _due(self) -> bool:
        """Whether a further frame is to be answered, as far as is known now."""
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
        """The four rows from `first_row` on, each mixed with its successor by `share` in [0, 1)."""
        count = ROWS_PER_VIDEO_FRAME + (1 if share else 0)
        rows = [self._row(first_row + offset) for offset in range(count)]

        def mixed(values: list[FloatArray]) -> FloatArray:
            stacked = np.stack(values)
            if not share:
                return stacked
            return stacked[:-1] * np.float32(1.0 - share) + stacked[1:] * np.float32(share)

        blocks = [block for block, _ in rows]
        wants = self._kinds.__contains__
        ppg = [block.ppg[row] for block, row in rows if block.ppg is not None]
        removed = [block.identity_removed[row] for block, row in rows if block.identity_removed is not None]
        return FeatureBlock(
            frame_index=self._next_frame,
            mel=mixed([block.mel[row] for block, row in rows]) if wants(FeatureKind.MEL) else None,
            mfcc=mixed([block.mfcc[row] for block, row in rows]) if wants(FeatureKind.MFCC) else None,
            ppg=mixed(ppg) if wants(FeatureKind.PPG) and len(ppg) == len(blocks) else None,
            speech_probability=(
                float(mixed([block.speech_probability[row] for block, row in rows]).mean())
                if wants(FeatureKind.SPEECH_PROBABILITY)
                else None
            ),
            identity_removed=mixed(removed) if wants(FeatureKind.IDENTITY_REMOVED) and len(removed) == len(blocks) else None,
        )

    def _row(self, row: int) -> tuple[RowBlock, int]:
        if row < 0:
            return self._silent, 0
        block, inner = divmod(row, ROWS_PER_VIDEO_FRAME)
        return self._blocks[block - self._blocks[0].index], inner


def _silent_block(models: AudioModels) -> RowBlock:
    """What the rows before time zero hold."""
    mfcc = np.zeros((ROWS_PER_VIDEO_FRAME, MFCC_WIDTH), np.float32)
    mfcc[:, : MFCC_WIDTH // 2] = silent_rows(ROWS_PER_VIDEO_FRAME)
    ppg = np.zeros((ROWS_PER_VIDEO_FRAME, NUM_PHONES), np.float32)
    ppg[:, SILENCE] = 1.0
    return RowBlock(
        index=-1,
        mel=np.full((ROWS_PER_VIDEO_FRAME, NUM_MELS), np.log(MEL_FLOOR), np.float32),
        mfcc=mfcc,
        ppg=ppg,
        speech_probability=np.zeros(ROWS_PER_VIDEO_FRAME, np.float32),
        identity_removed=models.silence_removed,
    )


def collect(blocks: list[FeatureBlock]) -> AudioFeatures:
    """Stack the blocks of consecutive frames; kinds that the blocks lack are None."""

    def stacked(arrays: list[FloatArray | None]) -> FloatArray | None:
        present = [array for array in arrays if array is not None]
        return np.stack(present) if present else None

    probabilities = [block.speech_probability for block in blocks if block.speech_probability is not None]
    return AudioFeatures(
        mel=stacked([block.mel for block in blocks]),
        mfcc=stacked([block.mfcc for block in blocks]),
        ppg=stacked([block.ppg for block in blocks]),
        speech_probability=np.array(probabilities, np.float32) if probabilities else None,
        identity_removed=stacked([block.identity_removed for block in blocks]),
    )


def extract_features(
    samples: FloatArray,
    sample_rate_hz: int,
    timeline: Timeline,
    kinds: frozenset[FeatureKind] = ALL_KINDS,
    *,
    models: AudioModels | None = None,
    num_frames: int = 0,
) -> AudioFeatures:
    """Features of a whole recording: the same bits that the stream gives.

    Args:
        samples: [samples] or [samples, channels] float32, nominally in [-1, 1].
        sample_rate_hz: 8000 to 192000.
        timeline: when each frame is shown.
        kinds: what is asked for.
        models: loaded networks; None loads the committed ones (tens of milliseconds).
        num_frames: how many frames; 0: those shown before the recording ends.

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
    return collect(blocks)
