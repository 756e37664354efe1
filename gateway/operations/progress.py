"""Finished share of an operation, and the time that is left, from the steps that report their frames."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

_GUESSED_FRAMES: Final = 250
"""Frames of an operation while the size of the footage is not known."""
_GUESSED_MEGAPIXELS: Final = 0.5
"""Million pixels of a frame while the size of the footage is not known."""
_SHOWN_S: Final = 2.0
"""Least seconds of work that say something about the rest."""
_SHOWN_SHARE: Final = 0.02
"""Least finished share that says something about the rest."""
_UNENDED: Final = 0.999
"""Largest share of work that has not ended."""


class _Trust(NamedTuple):
    """How much the costs of the steps are trusted beside the work of the operation.

    Attributes:
        recent_s: time constant with which work in the past loses weight, seconds: other processes change the speed of a machine.
        usual_s: seconds of estimated work that count as done in the estimated time, beside what is done.
        own_s: most seconds of estimated work that count, beside the work of the present step, as done at the pace before the step.
    """

    recent_s: float
    usual_s: float
    own_s: float


_OTHER_MACHINE: Final = _Trust(recent_s=25.0, usual_s=2.0, own_s=10.0)
"""Costs of another machine."""
_THIS_MACHINE: Final = _Trust(recent_s=60.0, usual_s=20.0, own_s=20.0)
"""Costs with measured paces of this machine."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Cost of one step, by measured times of one machine: only the relations of the steps matter.

    Attributes:
        name: name of the step.
        frame_ms: milliseconds of a frame of the footage or of the video.
        megapixel_ms: milliseconds of a million pixels of these frames.
        fixed_s: seconds of the step besides.
        counts_frames: whether the parts that the step reports are frames.
        most_frames: frames of a longer video that the step leaves out are those after so many; 0: the step takes all.
    """

    name: str
    frame_ms: float = 0.0
    megapixel_ms: float = 0.0
    fixed_s: float = 0.0
    counts_frames: bool = True
    most_frames: int = 0

    def seconds(self, frames: int, megapixels: float) -> float:
        """Return the cost of the step in a video of so many frames, and so many million pixels a frame, seconds."""
        taken = min(frames, self.most_frames) if self.most_frames else frames
        return self.fixed_s + (self.frame_ms + self.megapixel_ms * megapixels) * taken / 1000


@dataclass(frozen=True, slots=True)
class StepState:
    """State of an operation.

    Attributes:
        fraction: finished share of the whole, 0 to 1. It never falls.
        per_second: frames or parts of the step in a second; 0: not known.
        remaining_s: seconds until the end, by the pace so far; None: not known.
    """

    fraction: float
    per_second: float
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class _Pace:
    """Recent work.

    Attributes:
        spent_s: time that the work took, seconds. Time in the past has less weight.
        cost_s: estimated time of the same work, with the same weights.
    """

    spent_s: float = 0.0
    cost_s: float = 0.0

    def after(self, spent_s: float, cost_s: float, recent_s: float) -> _Pace:
        """Return the recent work after some more work, with the time constant `recent_s`."""
        weight = math.exp(-spent_s / recent_s)
        return _Pace(weight * self.spent_s + spent_s, weight * self.cost_s + cost_s)

    def ratio(self, usual: float, usual_s: float) -> float:
        """Return spent over estimated time, in which `usual_s` seconds of estimated work count with the ratio `usual`."""
        return (self.spent_s + usual * usual_s) / (self.cost_s + usual_s)


class WholeProgress:
    """Adds the steps of an operation up.

    The time left follows from recent work, as other processes change the speed of a machine: the rest of the present step from the
    work of this step, later steps from the work before this step, because relations of costs differ from machine to machine.

    A step that has not counted anything although a later step has reported is left out: its cost counts as done.

    Args:
        steps: costs of all steps, in the order in which they begin.
        paces: factor of this machine against the cost of each step, by name (`StepPaces.of`); empty: nothing was measured here yet.
        floor: share that an earlier process has reported.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        steps: Sequence[StepCost],
        *,
        paces: Mapping[str, float] = MappingProxyType({}),
        floor: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = steps
        self._paces = paces
        self._trust = _THIS_MACHINE if paces else _OTHER_MACHINE
        self._order = {step.name: index for index, step in enumerate(steps)}
        self._shares: dict[str, float] = {}
        self._frames, self._megapixels = _GUESSED_FRAMES, _GUESSED_MEGAPIXELS
        self._furthest = -1
        self._floor = self._first = floor
        self._clock = clock
        self._began: float | None = None
        self._step = ""
        self._step_began = 0.0
        self._step_first = 0
        self._last: float | None = None
        self._recent = self._before = self._own = _Pace()
        self._spent: dict[str, float] = {}
        self._expected: dict[str, float] = {}

    def footage(self, frames: int, megapixels: float) -> None:
        """Note the size of the footage, from which steps that have not begun are estimated.

        Args:
            frames: number of frames.
            megapixels: million pixels of a frame.
        """
        self._frames, self._megapixels = frames, megapixels

    def report(self, step: str, done: int, total: int) -> StepState:
        """Return the state after a step has finished `done` of its `total` frames or parts."""
        now = self._clock()
        index = self._order.get(step)
        if index is not None:
            # Before the first step, the stages are opened.
            self._began = self._began if self._began is not None else now
            if self._steps[index].frame_ms and self._steps[index].counts_frames and total > 1:
                self._frames = total
            self._spend(now)
            self._expected[step] = self._steps[index].seconds(self._frames, self._megapixels)
            self._furthest = max(self._furthest, index)
            before = self._shares.get(step, 0.0)
            self._shares[step] = max(before, min(1.0, done / total) if total > 0 else 0.0)
            # What the first report of a step counts was done by an earlier process, or in no time.
            gain = self._shares[step] - before if step == self._step else 0.0
            self._note(now - self._last if self._last is not None else 0.0, gain * self._seconds(index), begins=step != self._step)
            self._last = now
        if step != self._step:
            self._step, self._step_began, self._step_first = step, now, done
        self._floor = max(self._floor, min(_UNENDED, self._share()))
        spent, counted = now - self._step_began, done - self._step_first
        return StepState(
            fraction=self._floor,
            per_second=counted / spent if spent > 0.2 and counted > 0 else 0.0,
            remaining_s=self._remaining_s(now),
        )

    def measured(self) -> dict[str, tuple[float, float]]:
        """Return the seconds that each step took until now, and the seconds by its measured cost without its pace.

        An operation that an earlier process began has none.
        """
        if self._first:
            return {}
        self._spend(self._clock())
        return {step: (self._spent.get(step, 0.0), cost) for step, cost in self._expected.items()}

    def _spend(self, now: float) -> None:
        """Note the time since the last report as time of the present step."""
        if self._last is not None and self._step in self._order:
            self._spent[self._step] = self._spent.get(self._step, 0.0) + now - self._last

    def _costs(self) -> list[tuple[str, float, float]]:
        """Return name, cost and finished share of each step."""
        return [
            (
                step.name,
                self._seconds(index),
                self._shares.get(step.name) or float(index < self._furthest),
            )
            for index, step in enumerate(self._steps)
        ]

    def _share(self) -> float:
        costs = self._costs()
        whole = sum(cost for _, cost, _ in costs)
        return sum(cost * share for _, cost, share in costs) / whole if whole else 0.0

    def _seconds(self, index: int) -> float:
        step = self._steps[index]
        return self._paces.get(step.name, 1.0) * step.seconds(self._frames, self._megapixels)

    def _note(self, spent_s: float, cost_s: float, *, begins: bool) -> None:
        """Note work of the present step, or the end of the work of the step before."""
        self._recent = self._recent.after(spent_s, cost_s, self._trust.recent_s)
        if begins:
            self._before, self._own = self._recent, _Pace()
        else:
            self._own = self._own.after(spent_s, cost_s, self._trust.recent_s)

    def _remaining_s(self, now: float) -> float | None:
        if self._began is None or now - self._began < _SHOWN_S or self._floor - self._first < _SHOWN_SHARE:
            return None
        rest = {name: cost * (1.0 - share) for name, cost, share in self._costs()}
        trust = self._trust
        usual = self._before.ratio(1.0, trust.usual_s)
        own = self._own.ratio(usual, min(trust.own_s, self._before.cost_s + trust.usual_s))
        return rest.pop(self._step, 0.0) * own + sum(rest.values()) * self._before.ratio(own, trust.usual_s)
