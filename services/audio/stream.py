"""Rows of the acoustic grid as 16 kHz samples arrive: mel, cepstra, posteriorgram, ID-removed cepstra, speech probability.

Everything is computed in fixed blocks at absolute rows, so the same samples cut otherwise give the same bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.audio.features import DELTA_CONTEXT_ROWS, SpectralStream, cepstra, deltas
from services.audio.identity import (
    IDENTITY_PAST_ROWS,
    IDENTITY_WINDOW_ROWS,
    RunningNormaliser,
    normal_silence,
)
from services.audio.models import VOICE_CHUNK_SAMPLES, AudioModels
from services.audio.types import HOP_SAMPLES, NUM_CEPSTRA, ROWS_PER_VIDEO_FRAME, FeatureKind, FloatArray
from services.audio.windows import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, normalise, silent_rows

LOOK_AHEAD_SAMPLES: Final = 960
"""16 kHz samples after a block's last row within which all its features are known: 60 ms."""


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Four rows of the acoustic grid, rows 4 k to 4 k + 3; kinds that were not asked for are None."""

    index: int
    mel: FloatArray
    """[4, 80]"""
    mfcc: FloatArray
    """[4, 40]"""
    ppg: FloatArray | None
    """[4, 40]"""
    speech_probability: FloatArray
    """[4]"""
    identity_removed: FloatArray | None
    """[4, 20]"""


class RowStream:
    """Samples in, row blocks out, in order and without gap."""

    def __init__(self, models: AudioModels, kinds: frozenset[FeatureKind]) -> None:
        self._models = models
        self._with_ppg = FeatureKind.PPG in kinds
        self._identity = IdentityRows(models) if FeatureKind.IDENTITY_REMOVED in kinds else None
        self._spectral = SpectralStream()
        self._voice = models.new_voice_detector()
        self._voice_pending: FloatArray = np.zeros(0, np.float32)
        # One probability a row; a chunk's probability is given to the rows whose centre lies in it.
        self._voice_rows: deque[float] = deque()
        self._voice_chunks = 0
        self._voice_next_row = 0
        self._mel: deque[FloatArray] = deque()
        # Cepstra from MEAN_CONTEXT_ROWS before the next block that will be given out.
        self._cepstra: FloatArray = silent_rows(MEAN_CONTEXT_ROWS)
        self._next_block = 0
        self._last_window: bytes = b""
        self._last_ppg: FloatArray = np.zeros((0, NUM_CEPSTRA), np.float32)

    def push(self, samples: FloatArray) -> list[RowBlock]:
        """Blocks that the new 16 kHz samples complete."""
        mel = self._spectral.push(samples)
        self._mel.extend(mel)
        fresh = cepstra(mel)
        self._cepstra = np.concatenate([self._cepstra, fresh])
        if self._identity is not None:
            self._identity.push(fresh)
        self._listen(samples)
        ready = 0
        while self._complete(ready):
            ready += 1
        return self._take(ready)

    def _listen(self, samples: FloatArray) -> None:
        self._voice_pending = np.concatenate([self._voice_pending, samples])
        whole = len(self._voice_pending) // VOICE_CHUNK_SAMPLES
        if not whole:
            return
        cut = whole * VOICE_CHUNK_SAMPLES
        for probability in self._voice.chunks(self._voice_pending[:cut]).tolist():
            self._voice_chunks += 1
            while self._voice_next_row * HOP_SAMPLES + HOP_SAMPLES // 2 < self._voice_chunks * VOICE_CHUNK_SAMPLES:
                self._voice_rows.append(probability)
                self._voice_next_row += 1
        self._voice_pending = self._voice_pending[cut:].copy()

    def _complete(self, blocks: int) -> bool:
        """Whether one block more than `blocks` can be given out."""
        rows = (blocks + 1) * ROWS_PER_VIDEO_FRAME
        ahead = LOOK_AHEAD_ROWS if self._with_ppg or self._identity is not None else DELTA_CONTEXT_ROWS
        return len(self._cepstra) - MEAN_CONTEXT_ROWS >= rows + ahead and len(self._voice_rows) >= rows

    def _take(self, blocks: int) -> list[RowBlock]:
        if not blocks:
            return []
        ppg = self._posteriorgrams(blocks) if self._with_ppg else None
        removed = self._identity.take(blocks) if self._identity is not None else None
        taken = []
        for block in range(blocks):
            start = MEAN_CONTEXT_ROWS + block * ROWS_PER_VIDEO_FRAME
            rows = self._cepstra[start - DELTA_CONTEXT_ROWS : start + ROWS_PER_VIDEO_FRAME + DELTA_CONTEXT_ROWS]
            still = rows[DELTA_CONTEXT_ROWS : DELTA_CONTEXT_ROWS + ROWS_PER_VIDEO_FRAME]
            taken.append(
                RowBlock(
                    index=self._next_block + block,
                    mel=np.stack([self._mel.popleft() for _ in range(ROWS_PER_VIDEO_FRAME)]),
                    mfcc=np.concatenate([still, deltas(rows)], axis=1),
                    ppg=None if ppg is None else ppg[block],
                    speech_probability=np.array([self._voice_rows.popleft() for _ in range(ROWS_PER_VIDEO_FRAME)], np.float32),
                    identity_removed=None if removed is None else removed[block],
                )
            )
        self._next_block += blocks
        self._cepstra = self._cepstra[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return taken

    def _posteriorgrams(self, blocks: int) -> list[FloatArray]:
        """[4, 40] of each block; a window equal to the one before it (a long silence) is not run again."""
        windows: list[FloatArray] = []
        position: list[int] = []
        for block in range(blocks):
            end = MEAN_CONTEXT_ROWS + (block + 1) * ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS
            window = normalise(self._cepstra[end - MEAN_CONTEXT_ROWS : end])
            key = window.tobytes()
            if key != self._last_window:
                self._last_window = key
                windows.append(window)
            position.append(len(windows) - 1)
        fresh = self._models.posteriorgram(np.stack(windows)) if windows else self._last_ppg[None][:0]
        found = [self._last_ppg if index < 0 else fresh[index] for index in position]
        self._last_ppg = found[-1]
        return found


class IdentityRows:
    """Cepstra in, ID-removed cepstra of whole blocks out; the stream asks for a block once its look-ahead is there."""

    def __init__(self, models: AudioModels) -> None:
        self._models = models
        self._normaliser = RunningNormaliser()
        # Normalised rows from IDENTITY_PAST_ROWS before the next block on.
        self._rows = normal_silence(IDENTITY_PAST_ROWS)

    def push(self, cepstra: FloatArray) -> None:
        """The next rows, [n, 20]."""
        self._rows = np.concatenate([self._rows, self._normaliser.push(cepstra)])

    def take(self, blocks: int) -> FloatArray:
        """The next blocks, [blocks, 4, 20]."""
        starts = range(0, blocks * ROWS_PER_VIDEO_FRAME, ROWS_PER_VIDEO_FRAME)
        windows = np.stack([self._rows[start : start + IDENTITY_WINDOW_ROWS] for start in starts])
        self._rows = self._rows[blocks * ROWS_PER_VIDEO_FRAME :].copy()
        return self._models.identity_removed(windows)
