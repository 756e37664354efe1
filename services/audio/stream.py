"""Rows of the acoustic grid as 16 kHz samples arrive, for all kinds of features that a caller asked for.

Everything is computed in fixed blocks at absolute rows, so the same samples in other chunks give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.audio.features import SpectralStream, cepstra
from services.audio.kind import Heard
from services.audio.models import AudioModels
from services.audio.types import ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32


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

    def push(self, samples: Float32) -> list[RowBlock]:
        """Return the blocks that new 16 kHz samples complete. A block is complete once all its kinds are known."""
        mel = self._spectral.push(samples)
        heard = Heard(samples, mel, cepstra(mel))
        for source in self._sources.values():
            source.push(heard)
        count = min(source.num_known for source in self._sources.values()) // ROWS_PER_VIDEO_FRAME
        if count <= 0:
            return []
        taken = {kind: source.take(count) for kind, source in self._sources.items()}
        first, self._next_block = self._next_block, self._next_block + count
        return [RowBlock(first + block, {kind: rows[block] for kind, rows in taken.items()}) for block in range(count)]
