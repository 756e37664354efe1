"""Checks of a renderer on held-out clips: figures of quality, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from services.common.errors import InvalidRequest
from services.render.train.contact_sheet import draw_sheet
from services.render.train.held_out import Clip, Draw, HeldOut, base_pictures, blended, measure
from services.render.train.people import MIN_FRAMES
from services.training.training import Check
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet, by_speaker

CHECK_FRAMES: Final = 10
"""Frames that a check draws of each clip."""
_SHOWN: Final = 4
"""Frames of each clip on a contact sheet."""


def check_rows(data: TrainSet, count: int, *, without: Collection[str] = ()) -> list[ClipRow]:
    """Return at most `count` clips of split `val`, spread over the speakers.

    Args:
        data: the training set.
        count: largest number of clips.
        without: speakers whose clips are left out.

    Raises:
        InvalidRequest: there is no such clip, or all are too short.
    """
    groups = by_speaker(
        row for row in data.of("val", pixels=True) if row.usable_frames >= MIN_FRAMES and row.speaker not in without
    )
    turns = max((len(rows) for rows in groups.values()), default=0)
    # The first clip of every speaker, then the second clip of every speaker, and so on.
    ordered = [rows[turn] for turn in range(turns) for rows in groups.values() if turn < len(rows)]
    if not ordered:
        raise InvalidRequest(
            f"{data.folder}: no clip of split 'val' can be drawn: a clip must show the mouth in at least {MIN_FRAMES} frames, and "
            "its person must have all that the network needs",
            field="data",
        )
    if len(groups) <= count:
        return ordered[:count]
    return [ordered[place] for place in np.unique(np.linspace(0, len(groups) - 1, count).round().astype(int))]


class HeldOutClips:
    """Held-out clips of a training, read at the first check.

    Args:
        rows: rows of the clips.
        data: the training set.
        known: names of the people that the network learns from.
        read: returns a clip with a number of pairs, evenly spread.
    """

    def __init__(
        self, rows: Collection[ClipRow], data: TrainSet, known: Collection[str], read: Callable[[Clip, int], HeldOut]
    ) -> None:
        self._rows, self._data, self._known, self._read = tuple(rows), data, frozenset(known), read

    def check(self, draw: Draw, path: Path) -> Check:
        """Return figures by group of clips, without a score, and write a contact sheet.

        The groups are `known`, clips of people that the network learns from, and `new`, clips of other people. Figures that begin
        with `base` belong to the pictures that the network starts from. On the sheet, each column has such a picture, the drawn
        one, and the footage.

        Args:
            draw: draws with the network to check.
            path: file of the contact sheet.
        """
        values: dict[str, list[float]] = {}
        columns = []
        for row, clip, base_db in self._clips:
            group = "known" if row.speaker in self._known else "new"
            found = measure(clip, draw)
            for name, value in (
                (f"{group}_psnr_db", found.psnr_db),
                (f"{group}_sharpness", found.sharpness_ratio),
                (f"{group}_base_psnr_db", base_db),
            ):
                values.setdefault(name, []).append(value)
            some = clip.pairs[:: max(1, len(clip.pairs) // _SHOWN)][:_SHOWN]
            for pair, given, drawn in zip(some, base_pictures(some), draw(some), strict=True):
                columns.append([blended(pair, given), blended(pair, drawn), pair.target])
        draw_sheet(path, columns)
        return Check({name: float(np.mean(each)) for name, each in values.items()})

    @cached_property
    def _clips(self) -> list[tuple[ClipRow, HeldOut, float]]:
        clips = [(row, self._read(Clip(self._data, row), CHECK_FRAMES)) for row in self._rows]
        return [(row, clip, measure(clip, base_pictures).psnr_db) for row, clip in clips]
