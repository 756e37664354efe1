"""What the command line writes to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def say_error(message: str) -> None:
    """One line in red."""
    err.print(f"[bold red]error:[/] {_plain(message)}")


def say_warning(message: str) -> None:
    """One line in yellow."""
    err.print(f"[yellow]warning:[/] {_plain(message)}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


class StepProgress:
    """Progress bars of a job, one a pass, with frames a second and the time left; silent off a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9}"),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Told of every frame or step of a pass."""
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total, rate="")
            self._began[step] = time.monotonic()
        spent = time.monotonic() - self._began[step]
        rate = f"{done / spent:.1f}/s" if spent > 0.5 else ""
        self._progress.update(self._tasks[step], completed=done, total=total, rate=rate)
