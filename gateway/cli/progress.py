"""Progress of a command: bars on a terminal, otherwise one line about every ten seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.cli.console import err, printable, say
from gateway.operations.progress import StepCost, WholeProgress

if TYPE_CHECKING:
    from gateway.operations.step_paces import StepPaces

LINE_SECONDS: Final = 10.0
"""Seconds between two lines if stderr is not a terminal."""
_WHOLE: Final = "all steps"


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

    def begin(self, what: str) -> None:
        """Show a step that has no count, such as the start of the stages."""
        self._shown.begin(what)

    def footage(self, frames: int, megapixels: float) -> None:
        """Take the size of the footage, frames and million pixels of a frame, for the estimate of the time left."""
        if self._whole is not None:
            self._whole.footage(frames, megapixels)

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that `done` of the `total` frames or steps of a pass are finished."""
        self._shown.update(step, done, total)
        if self._whole is not None:
            state = self._whole.report(step, done, total)
            self._shown.whole(state.fraction, state.remaining_s)


class _Bars:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9}"),
            TimeRemainingColumn(),
            console=err,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def begin(self, what: str) -> None:
        say(f"{what} ...")

    def update(self, step: str, done: int, total: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(escape(printable(step)), total=total, rate="")
            self._began[step] = time.monotonic()
        spent = time.monotonic() - self._began[step]
        rate = f"{done / spent:.1f}/s" if spent > 0.5 else ""
        self._progress.update(self._tasks[step], completed=done, total=total, rate=rate)

    def whole(self, fraction: float, remaining_s: float | None) -> None:
        if _WHOLE not in self._tasks:
            self._tasks[_WHOLE] = self._progress.add_task(_WHOLE, total=100, rate="")
        rest = f"{_clock(remaining_s)} left" if remaining_s is not None else ""
        self._progress.update(self._tasks[_WHOLE], completed=int(100 * fraction), rate=rest)


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


def _clock(seconds: float) -> str:
    """Return seconds as minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
