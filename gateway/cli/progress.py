"""Progress of a command: bars on a terminal, otherwise one line about every ten seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gateway.cli.console import err, printable, say
from gateway.dub.progress import STEP_NAMES
from gateway.operations.progress import StepCost, WholeProgress

if TYPE_CHECKING:
    from gateway.operations.step_paces import StepPaces

LINE_SECONDS: Final = 10.0
"""Seconds between two lines if stderr is not a terminal."""
_WHOLE: Final = "All steps"
_NAME_WIDTH: Final = max(map(len, STEP_NAMES.values()))


class StepProgress:
    """Shows how much of each pass of a job is done, the speed, and the time left.

    If stderr is not a terminal, a separate thread prints the lines. So a user sees that a pass still runs, even if the pass reports
    nothing for minutes.

    Args:
        steps: costs of the steps, for the share of the whole job; empty: the share is not shown.
        paces: paces of this machine, which correct the costs, and learn from a job that ends well; None: the costs stay.
        line_s: seconds between two lines if stderr is not a terminal.
    """

    def __init__(self, steps: Sequence[StepCost] = (), *, paces: StepPaces | None = None, line_s: float = LINE_SECONDS) -> None:
        self._shown: _Bars | _Lines = _Bars() if err.is_terminal else _Lines(line_s)
        self._paces = paces
        self._whole = WholeProgress(steps, paces=paces.of(steps) if paces is not None else {}) if steps else None

    def __enter__(self) -> Self:
        self._shown.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shown.stop()
        if kind is None and self._paces is not None and self._whole is not None:
            self._paces.add(self._whole)

    def begin(self, step: str) -> None:
        """Show a step that has no count, such as the start of the stages."""
        self._shown.begin(_shown_name(step))

    def footage(self, frames: int, megapixels: float) -> None:
        """Take the size of the footage, frames and million pixels of a frame, for the estimate of the time left."""
        if self._whole is not None:
            self._whole.footage(frames, megapixels)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that `done` of the `total` frames or steps of a pass are finished."""
        self._shown.update(_shown_name(step), done, total)
        if self._whole is not None:
            state = self._whole.report(step, done, total)
            self._shown.whole(state.fraction, state.remaining_s)


@dataclass(frozen=True, slots=True)
class _Bar:
    """Bar of a step, the second at which it began, and the count that it began with."""

    task: TaskID
    began: float
    first: int


class _Bars:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn(f"{{task.description:<{_NAME_WIDTH}}}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]:>11}"),
            TextColumn("{task.fields[rate]:>7}"),
            TextColumn("{task.fields[left]:>10}"),
            console=err,
            expand=True,
        )
        self._bars: dict[str, _Bar] = {}
        self._step = ""

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def begin(self, what: str) -> None:
        self.update(what, 0, 1)

    def update(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step != self._step:
            self._end()
        if step not in self._bars:
            self._bars[step] = _Bar(self._add(step), now, done)
        self._step, bar = step, self._bars[step]
        if total <= 1 and not done:
            # The bar moves until the only part of the step is done.
            self._progress.update(bar.task, total=None)
            return
        spent, counted = now - bar.began, done - bar.first
        is_timed = spent > 0.5 and counted > 0
        self._progress.update(
            bar.task,
            completed=done,
            total=total,
            count=f"{done}/{total}" if total > 1 else "",
            rate=f"{counted / spent:.1f}/s" if is_timed else "",
            left=f"{_clock((total - done) * spent / counted)} left" if is_timed and done < total else "",
        )

    def whole(self, fraction: float, remaining_s: float | None) -> None:
        if _WHOLE not in self._bars:
            self._bars[_WHOLE] = _Bar(self._add(_WHOLE), 0.0, 0)
        left = f"{_clock(remaining_s)} left" if remaining_s is not None else ""
        share = int(100 * fraction)
        self._progress.update(self._bars[_WHOLE].task, completed=share, total=100, count=f"{share} %", left=left)

    def _add(self, name: str) -> TaskID:
        return self._progress.add_task(escape(printable(name)), total=None, count="", rate="", left="")

    def _end(self) -> None:
        """Fill the bar of a step of one part: many of them do not report their end, and another step begins."""
        bar = self._bars.get(self._step)
        if bar is not None and self._progress.tasks[bar.task].total is None:
            self._progress.update(bar.task, completed=1, total=1)


class _Lines:
    def __init__(self, line_s: float) -> None:
        self._line_s = line_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)
        self._began = time.monotonic()
        self._step = ""
        self._step_began = 0.0
        self._done_before = 0
        self._state = ""
        self._whole = ""

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def begin(self, what: str) -> None:
        self._step, self._state = what, f"{what} ..."
        self._say()

    def update(self, step: str, done: int, total: int) -> None:
        first = not self._state
        if step != self._step:
            # If a step continues after another step, its speed is measured from its count at the continuation.
            self._step, self._step_began, self._done_before = step, time.monotonic(), done
        self._state = f"{step}: {done} of {total}{self._pace(done, total)}"
        if first:
            self._say()

    def whole(self, fraction: float, remaining_s: float | None) -> None:
        rest = f", {_clock(remaining_s)} to the end" if remaining_s is not None else ""
        self._whole = f"; {fraction:.0%} of all steps{rest}"

    def _pace(self, done: int, total: int) -> str:
        if done >= total:
            return ", the next step begins"
        spent = time.monotonic() - self._step_began
        counted = done - self._done_before
        if spent < 1.0 or counted <= 0:
            return ""
        left = (total - done) * spent / counted
        return f", {counted / spent:.1f} per second, about {_clock(left)} left"

    def _say(self) -> None:
        say(f"{_clock(time.monotonic() - self._began)}  {self._state}{self._whole}")

    def _repeat(self) -> None:
        while not self._ended.wait(self._line_s):
            if self._state:
                self._say()


def _shown_name(step: str) -> str:
    """Return the name of a step for users."""
    return STEP_NAMES.get(step, step)


def _clock(seconds: float) -> str:
    """Return seconds as minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
