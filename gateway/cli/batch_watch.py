"""Progress of a batch on the terminal, and `dubstage batch watch`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from gateway.batch.records import Progress, progress_of
from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts, ShotRecord
from gateway.cli.batch_show import counts, pace, show_end
from gateway.cli.console import err, say
from gateway.cli.progress import LINE_SECONDS
from services.common.errors import DubstageError

POLL_SECONDS: Final = 3.0
"""Seconds between two looks at the records of a batch."""
PATIENCE_S: Final = 900.0
"""Seconds without an answer of the store of batches after which a watch gives up."""


class BatchProgress:
    """Shows how many shots of a batch have ended, the speed and the time left: a bar on a terminal, otherwise lines.

    Args:
        name: name of the batch.
        line_s: least seconds between two lines if stderr is not a terminal. A line is printed only if something changed.
    """

    def __init__(self, name: str, line_s: float = LINE_SECONDS) -> None:
        self._line_s = line_s
        self._told_at, self._told = float("-inf"), ""
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bars = Bars(*columns, console=err) if err.is_terminal else None
        self._bar = self._bars.add_task("", total=None) if self._bars is not None else None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show the progress."""
        if self._bars is not None and self._bar is not None:
            text = f"{progress.failed} failed, {progress.left} left{pace(progress)}"
            self._bars.update(self._bar, description=text, completed=progress.total - progress.left, total=progress.total)
            return
        line = f"{counts(progress)}{pace(progress)}"
        if line != self._told and time.monotonic() - self._told_at >= self._line_s:
            self._told_at, self._told = time.monotonic(), line
            say(line)


def watch_batch(store: BatchStore, name: str) -> int:
    """Show the progress of a batch until every shot has ended, and return the exit code.

    In a cluster, the watch also ends when no Job works on the batch any more. Elsewhere nothing tells that a worker was killed: its
    shot counts as running.
    """
    facts = store.facts(name)
    said: set[str] = set()
    records: list[ShotRecord] = []
    with BatchProgress(name) as progress:
        for records, notes in _snapshots(store, facts):
            for note in notes:
                if note not in said:
                    said.add(note)
                    say(note)
            progress.update(progress_of(records))
    return show_end(name, records)


def _snapshots(store: BatchStore, facts: BatchFacts) -> Iterator[tuple[list[ShotRecord], tuple[str, ...]]]:
    """Yield the records of all shots and notes for a person, again and again until the batch has ended."""
    if facts.engine == "kubernetes":
        from gateway.batch.kubernetes import open_engine_of

        for snapshot in open_engine_of(facts).watch(store, facts.name):
            yield list(snapshot.records), snapshot.notes
        return
    answered = time.monotonic()
    while True:
        try:
            records = store.records(facts.name)
        except DubstageError as error:
            if not error.retryable or time.monotonic() - answered > PATIENCE_S:
                raise
            time.sleep(POLL_SECONDS)
            continue
        answered = time.monotonic()
        progress = progress_of(records)
        idle = f"no shot is running now: submit the manifest of batch {facts.name} again to go on"
        yield records, (idle,) if progress.left and not progress.running else ()
        if progress.ended:
            return
        time.sleep(POLL_SECONDS)
