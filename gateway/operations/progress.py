"""Finished share of an operation, and the time that is left, from the steps that report their frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_GUESSED_FRAMES: Final = 250
"""Frames of an operation that has not told its frames yet."""
_SHOWN_S: Final = 2.0
"""Least seconds of work that say something about the rest."""
_SHOWN_SHARE: Final = 0.02
"""Least finished share that says something about the rest."""
_UNENDED: Final = 0.999
"""Largest share of work that has not ended."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Cost of one step, by measured times of one machine: only the relations of the steps matter.

    Attributes:
        name: name of the step.
        frame_ms: milliseconds of a frame of the footage or of the video.
        fixed_s: seconds of the step besides.
    """

    name: str
    frame_ms: float = 0.0
    fixed_s: float = 0.0

    def seconds(self, frames: int) -> float:
        """Return the cost of the step in a video of so many frames, seconds."""
        return self.fixed_s + self.frame_ms * frames / 1000


@dataclass(frozen=True, slots=True)
class StepState:
    """State of an operation.

    Attributes:
        fraction: finished share of the whole, 0 to 1. It never falls.
        step: name of the step.
        done, total: finished and all frames or parts of the step.
        per_second: frames or parts of the step in a second; 0: not known.
        remaining_s: seconds until the end, by the pace so far; None: not known.
    """

    fraction: float
    step: str
    done: int
    total: int
    per_second: float
    remaining_s: float | None


class WholeProgress:
    """Adds the steps of an operation up.

    A step that has not reported although a later step has is left out: its cost counts as done.

    Args:
        steps: costs of all steps, in the order in which they begin.
        floor: share that an earlier process has reported.
        clock: returns seconds that never go back.
    """

    def __init__(self, steps: Sequence[StepCost], *, floor: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._order = {step.name: place for place, step in enumerate(steps)}
        self._shares: dict[str, float] = {}
        self._frames = _GUESSED_FRAMES
        self._furthest = -1
        self._floor = self._first = floor
        self._clock = clock
        self._began = clock()
        self._step = ""
        self._step_began = self._began
        self._step_first = 0

    def report(self, step: str, done: int, total: int) -> StepState:
        """Return the state after a step has finished `done` of its `total` frames or parts."""
        now = self._clock()
        if step != self._step:
            self._step, self._step_began, self._step_first = step, now, done
        place = self._order.get(step)
        if place is not None:
            self._furthest = max(self._furthest, place)
            self._shares[step] = max(self._shares.get(step, 0.0), min(1.0, done / total) if total > 0 else 0.0)
            if self._steps[place].frame_ms and total > 1:
                self._frames = total
        self._floor = max(self._floor, min(_UNENDED, self._share()))
        spent, counted = now - self._step_began, done - self._step_first
        return StepState(
            fraction=self._floor,
            step=step,
            done=done,
            total=total,
            per_second=counted / spent if spent > 0.2 and counted > 0 else 0.0,
            remaining_s=self._remaining_s(now - self._began),
        )

    def _share(self) -> float:
        costs = [step.seconds(self._frames) for step in self._steps]
        whole = sum(costs)
        ended = sum(
            cost * self._shares.get(step.name, float(place < self._furthest))
            for place, (step, cost) in enumerate(zip(self._steps, costs, strict=True))
        )
        return ended / whole if whole else 0.0

    def _remaining_s(self, spent_s: float) -> float | None:
        made = self._floor - self._first
        if spent_s < _SHOWN_S or made < _SHOWN_SHARE:
            return None
        return spent_s * (1.0 - self._floor) / made
