"""The growing parts of a training set that a learning curve is measured on."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet, by_speaker

MINUTES: Final = (2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
"""Sizes of the parts on the axis `minutes`, besides all footage."""
FREE_MINUTES: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0, 300.0)
"""Minutes of free speech on the axis `free_speech`, besides all free speech."""
_FRAMES_PER_MINUTE: Final = 25 * 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Description of a part of the training clips.

    Attributes:
        axis: `minutes`, `free_speech`, `speakers` or `narrow_speakers`.
        seed: seed of the draw and of the training.
        minutes: minutes that show the mouth.
        free_minutes: how many of these minutes are free speech: of no narrow corpus, see ClipRow.narrow.
        speakers: number of speakers.
        clips: number of clips.
    """

    axis: str
    seed: int
    minutes: float
    free_minutes: float
    speakers: int
    clips: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the training clips."""

    point: Point
    rows: tuple[ClipRow, ...]


def minutes_of(rows: Iterable[ClipRow]) -> float:
    """Return the minutes of clips that show the mouth."""
    return sum(row.usable_frames for row in rows) / _FRAMES_PER_MINUTE


def in_turns(rows: Sequence[ClipRow], seed: int) -> list[ClipRow]:
    """Return clips in an order whose every beginning has as many speakers as possible.

    The next clip is always a clip of the speaker with the fewest frames so far. Among several such speakers, the shortest clip is
    next. The clips of one speaker are in random order.
    """
    rng = np.random.default_rng((seed, len(rows)))
    left = {speaker: [own[place] for place in rng.permutation(len(own))] for speaker, own in by_speaker(rows).items()}
    waiting = [(0, own[-1].usable_frames, float(rng.random()), speaker) for speaker, own in left.items()]
    heapq.heapify(waiting)
    order: list[ClipRow] = []
    while waiting:
        drawn, frames, rank, speaker = heapq.heappop(waiting)
        order.append(left[speaker].pop())
        if left[speaker]:
            heapq.heappush(waiting, (drawn + frames, left[speaker][-1].usable_frames, rank, speaker))
    return order


def by_minutes(rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return parts that grow by minutes. Each part contains the smaller parts."""
    order = in_turns(rows, seed)
    sizes = [size for size in MINUTES if size < minutes_of(rows)]
    return [_part("minutes", seed, taken) for taken in (*(_beginning(order, size) for size in sizes), tuple(order))]


def by_free_speech(rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return parts that have all footage of narrow corpora and grow by free speech. Each part contains the smaller parts.

    Without footage of narrow corpora, or without free speech, there are no such parts.
    """
    narrow, free = tuple(row for row in rows if row.narrow), [row for row in rows if not row.narrow]
    if not narrow or not free:
        return []
    order = in_turns(free, seed)
    sizes = [size for size in FREE_MINUTES if size < minutes_of(free)]
    drawn = [_beginning(order, size) if size else () for size in sizes]
    return [_part("free_speech", seed, (*narrow, *taken)) for taken in (*drawn, tuple(order))]


def by_speakers(rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return parts of equal minutes with 1, 2, 4, ... speakers and all. Speakers with more footage come first."""
    return _speaker_parts("speakers", rows, seed)


def by_narrow_speakers(rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return the parts of `by_speakers` of the footage of narrow corpora alone.

    All parts then have the same kind of speech. If all footage is narrow, there are no such parts: `by_speakers` returns them.
    """
    narrow = [row for row in rows if row.narrow]
    return _speaker_parts("narrow_speakers", narrow, seed) if 0 < len(narrow) < len(rows) else []


def equal_minutes(rows: Sequence[ClipRow], seed: int) -> float:
    """Return the minutes of the parts on the axis `speakers`: one clip of each speaker, rounded up to half a minute.

    The minutes are at most the footage of the speaker with the most footage, who must fill a part alone.
    """
    first: dict[str, ClipRow] = {}
    for row in in_turns(rows, seed):
        first.setdefault(row.speaker, row)
    needed = math.ceil(minutes_of(first.values()) * 2.0) / 2.0
    return min(needed, max(minutes_of(own) for own in by_speaker(rows).values()))


def all_parts(rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return the parts of all axes."""
    return [part for axis in (by_minutes, by_free_speech, by_speakers, by_narrow_speakers) for part in axis(rows, seed)]


def with_part(data: TrainSet, part: Part) -> TrainSet:
    """Return a training set in which only a part of the split `train` is drawn.

    The other clips of `train` stay with the weight 0, so that their speakers count as known and the groups of held-out clips do not
    change.
    """
    taken = {row.name for row in part.rows}
    cut = copy(data)
    cut.rows = tuple(replace(row, weight=0.0) if row.split == "train" and row.name not in taken else row for row in data.rows)
    return cut


def _speaker_parts(axis: str, rows: Sequence[ClipRow], seed: int) -> list[Part]:
    """Return parts of `equal_minutes`. Speakers give equally much as far as they can; those with more footage give the rest."""
    groups = sorted(by_speaker(rows).items(), key=lambda group: (-minutes_of(group[1]), group[0]))
    minutes = equal_minutes(rows, seed)
    # The largest power of two is left out if all speakers are hardly more.
    counts = [*(2**power for power in range(len(groups).bit_length()) if 2**power * 1.25 < len(groups)), len(groups)]
    drawn = ([row for _, own in groups[:count] for row in own] for count in counts)
    return [_part(axis, seed, _beginning(in_turns(some, seed), minutes)) for some in drawn]


def _beginning(order: Sequence[ClipRow], minutes: float) -> tuple[ClipRow, ...]:
    """Return the longest beginning of `order` that is not longer than a number of minutes, and at least one clip."""
    frames = np.cumsum([row.usable_frames for row in order])
    count = int(np.searchsorted(frames, round(minutes * _FRAMES_PER_MINUTE), side="right"))
    return tuple(order[: max(1, count)])


def _part(axis: str, seed: int, rows: tuple[ClipRow, ...]) -> Part:
    point = Point(
        axis=axis,
        seed=seed,
        minutes=round(minutes_of(rows), 2),
        free_minutes=round(minutes_of(row for row in rows if not row.narrow), 2),
        speakers=len({row.speaker for row in rows}),
        clips=len(rows),
    )
    return Part(point, rows)
