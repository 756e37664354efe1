"""Progress of a batch, computed from the records of its shots."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.batch.types import WRITTEN, ShotRecord, ShotState


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress of a batch.

    Attributes:
        total: number of shots.
        waiting, running, done, undubbed, failed, cancelled: number of shots in each state.
        look: shots that are done and that the quality gate wants a person to look at.
        frames: frames of the films that are written.
        frames_per_second: frames of all workers together, in the time in which a shot was worked on; None: no film is written.
        seconds_left: time that the shots left take at the present pace; None: no film is written.
    """

    total: int
    waiting: int
    running: int
    done: int
    undubbed: int
    failed: int
    cancelled: int
    look: int
    frames: int
    frames_per_second: float | None
    seconds_left: float | None

    @property
    def left(self) -> int:
        """Number of shots that have not ended."""
        return self.waiting + self.running

    @property
    def ended(self) -> bool:
        """Whether all shots have ended."""
        return not self.left


def progress_of(records: Sequence[ShotRecord]) -> Progress:
    """Return the progress of a batch from the records of all its shots.

    The pace counts the time in which at least one of the shots whose films are written was worked on. The nights between two
    submissions of a batch do not count.
    """
    states = Counter(record.state for record in records)
    written = [record for record in records if record.state in WRITTEN]
    frames = sum(record.frames for record in written)
    spent = _covered(
        (begun, ended) for record in written if (begun := _time(record.begun_at)) and (ended := _time(record.ended_at))
    )
    left = states[ShotState.WAITING] + states[ShotState.RUNNING]
    return Progress(
        total=len(records),
        waiting=states[ShotState.WAITING],
        running=states[ShotState.RUNNING],
        done=states[ShotState.DONE],
        undubbed=states[ShotState.UNDUBBED],
        failed=states[ShotState.FAILED],
        cancelled=states[ShotState.CANCELLED],
        look=sum(bool(record.look) for record in records if record.state is ShotState.DONE),
        frames=frames,
        frames_per_second=frames / spent if spent else None,
        seconds_left=left * spent / len(written) if spent else None,
    )


def _time(text: str) -> float:
    """Return the Unix time of an RFC 3339 time, seconds; 0: the text is empty or no time."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans (begin, end), seconds."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
