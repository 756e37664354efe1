"""Finished share of an operation, and the time that is left, from the steps that report their frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_GUESSED_FRAMES: Final = 250
"""Frames of an operation while the size of the footage is not known."""
_GUESSED_MEGAPIXELS: Final = 0.5
"""Million pixels of a frame while the size of the footage is not known."""
_PACED_SHARE: Final = 0.1
"""Least finished share of a step from which its own pace says how long the rest of the step takes."""
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
        megapixel_ms: milliseconds of a million pixels of these frames.
        fixed_s: seconds of the step besides.
    """

    name: str
    frame_ms: float = 0.0
    megapixel_ms: float = 0.0
    fixed_s: float = 0.0

    def seconds(self, frames: int, megapixels: float) -> float:
        """Return the cost of the step in a video of so many frames, and so many million pixels a frame, seconds."""
        return self.fixed_s + (self.frame_ms + self.megapixel_ms * megapixels) * frames / 1000


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

    A step that has not counted anything although a later step has reported is left out: its cost counts as done.

    Args:
        steps: costs of all steps, in the order in which they begin.
        floor: share that an earlier process has reported.
        clock: returns seconds that never go back.
    """

    def __init__(self, steps: Sequence[StepCost], *, floor: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._order = {step.name: place for place, step in enumerate(steps)}
        self._shares: dict[str, float] = {}
        self._frames, self._megapixels = _GUESSED_FRAMES, _GUESSED_MEGAPIXELS
        self._furthest = -1
        self._floor = self._first = floor
        self._clock = clock
        self._began: float | None = None
        self._step = ""
        self._step_began = 0.0
        self._step_first = 0
        self._step_share = 0.0

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
        if step != self._step:
            self._step, self._step_began, self._step_first = step, now, done
            self._step_share = self._shares.get(step, 0.0)
        place = self._order.get(step)
        if place is not None:
            # Before the first step, the stages are opened.
            self._began = self._began if self._began is not None else now
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
            remaining_s=self._remaining_s(now),
        )

    def _costs(self) -> list[tuple[str, float, float]]:
        """Return name, cost and finished share of each step."""
        return [
            (
                step.name,
                step.seconds(self._frames, self._megapixels),
                self._shares.get(step.name) or float(place < self._furthest),
            )
            for place, step in enumerate(self._steps)
        ]

    def _share(self) -> float:
        costs = self._costs()
        whole = sum(cost for _, cost, _ in costs)
        return sum(cost * share for _, cost, share in costs) / whole if whole else 0.0

    def _remaining_s(self, now: float) -> float | None:
        if self._began is None or now - self._began < _SHOWN_S or self._floor - self._first < _SHOWN_SHARE:
            return None
        costs = self._costs()
        # Steps that did not run, or ran in an earlier process, say nothing of this machine.
        ended = sum(cost * share for name, cost, share in costs if name in self._shares)
        own, own_share = next(((cost, share) for name, cost, share in costs if name == self._step), (0.0, 0.0))
        rest = sum(cost * (1.0 - share) for _, cost, share in costs)
        pace = (now - self._began) / ended if ended else 1.0
        made = own_share - self._step_share
        if made < _PACED_SHARE or now - self._step_began < _SHOWN_S:
            return rest * pace
        own_s = (now - self._step_began) * (1.0 - own_share) / made
        others = ended - own * made
        if others > _SHOWN_SHARE * (ended + rest):
            pace = (self._step_began - self._began) / others
        return own_s + (rest - own * (1.0 - own_share)) * pace
