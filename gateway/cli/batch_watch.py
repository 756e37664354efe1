"""Batches on the terminal: status, list, and the progress that `dubstage batch watch` shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self, get_args

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from gateway.batch.changes import ask_cluster
from gateway.batch.lists import LOOK, Order, ShotQuery
from gateway.batch.records import Progress, progress_from
from gateway.batch.reviews import ReviewState
from gateway.batch.risk import reasons_of, risk_of
from gateway.batch.store import BatchStore
from gateway.batch.types import LEFT, WRITTEN, BatchFacts, ShotRecord, ShotState
from gateway.cli.console import err, printable, say, say_json, say_result, say_table, say_to_quiet, say_warning, wants_json
from gateway.cli.progress import LINE_SECONDS
from services.common.errors import (
    UNDUBBED_EXIT_CODE,
    DubstageError,
    InvalidRequestError,
    PreconditionError,
    RequestError,
    TransientError,
    UnexpectedError,
)

STATES: Final = (*map(str, ShotState), LOOK)
"""Names of the states of shots, and `look` for shots that the quality gate wants a person to look at."""
SHOWN_SHOTS: Final = 500
"""Most shots that a command lists, unless the user gives a number."""
POLL_SECONDS: Final = 3.0
"""Seconds between two looks at the records of a batch."""
PATIENCE_S: Final = 900.0
"""Seconds without an answer of the database after which a watch gives up."""
_LINE: Final = "{:<41}{:<12}{:<18}{:>7}{:>7}{:>9}{:>7}{:>10}{:>7}"
_SHOWN_FAILURES: Final = 10
"""Most failed shots whose errors are printed at the end of a run."""
_BY_URGENCY: Final = (*(kind.exit_code for kind in (UnexpectedError, PreconditionError, RequestError)), UNDUBBED_EXIT_CODE)
"""Exit codes of shots that failed or have no dubbed frame. A batch with several such shots ends with the first of these."""


def states_named(names: Sequence[str], option: str) -> frozenset[str]:
    """Return the states that a user names; without names, all `STATES`.

    Args:
        names: the states.
        option: name of the option that takes the states, without hyphens.

    Raises:
        InvalidRequestError: there is no such state.
    """
    if wrong := [name for name in names if name not in STATES]:
        raise InvalidRequestError(f"--{option} {wrong[0][:80]!r} is no state; there are: {', '.join(STATES)}", field=option)
    return frozenset(names or STATES)


def show_batches(store: BatchStore) -> None:
    """Print one line for each batch, the oldest first."""
    batches, states = sorted(store.batches(), key=lambda facts: (facts.created_at, facts.name)), store.states()
    if not batches:
        say(f"no batches in {store.where}")
        return
    say_result(_LINE.format("batch", "engine", "created", "shots", "done", "undubbed", "failed", "cancelled", "left"))
    for facts in batches:
        created, now = facts.created_at[:16].replace("T", " "), states[facts.name]
        ended = [now.get(state, 0) for state in (ShotState.DONE, ShotState.UNDUBBED, ShotState.FAILED, ShotState.CANCELLED)]
        say_result(_LINE.format(facts.name, facts.engine, created, facts.rows, *ended, sum(now.get(state, 0) for state in LEFT)))


def show_status(store: BatchStore, name: str, states: frozenset[str], limit: int) -> None:
    """Print a table of the shots of a batch, and the counts.

    Args:
        store: store of batches.
        states: names of the states whose shots are shown; `look`: shots that the quality gate wants a person to look at.
        limit: most shots that are shown.
    """
    facts = store.facts(name)
    notes, query = ask_cluster(store, facts), ShotQuery(states=states)
    table = Table("shot", "state", "tries", "frames", "dubbed", "r", "time", "what", box=None, pad_edge=False)
    for shot in store.shots(name, query, limit):
        table.add_row(*_cells(shot.record))
    if table.row_count:
        say_table(table)
    _say_hidden(store.count(name, query) - limit)
    for note in notes:
        say_warning(note)
    progress = progress_now(store, name)
    say_result(f"batch {name}, engine {facts.engine}: {counts(progress)}{pace(progress)}")


def _say_hidden(number: int) -> None:
    if number > 0:
        say(f"{number} more shots are not shown: choose shots by their state, or give --limit NUMBER")


def reviews_named(names: Sequence[str]) -> frozenset[str]:
    """Return the states of review that a user names; without names, all.

    Raises:
        InvalidRequestError: there is no such state.
    """
    if wrong := [name for name in names if name not in set(ReviewState)]:
        raise InvalidRequestError(
            f"--review {wrong[0][:80]!r} is no state of review; there are: {', '.join(ReviewState)}", field="review"
        )
    return frozenset(names or ReviewState)


def show_shots(
    store: BatchStore,
    name: str,
    states: frozenset[str],
    reviews: frozenset[str],
    *,
    assignee: str | None,
    order: str,
    limit: int,
) -> None:
    """Print one line for each shot of a batch: state, risk, decision, and the strongest reason of the risk.

    With --json, all that is known of the shots is printed.

    Args:
        store: store of batches.
        states: as for `show_status`.
        reviews: states of review whose shots are shown.
        assignee: only shots that are assigned to this person; None: all.
        order: an Order.
        limit: most shots that are shown.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: there is no such order.
    """
    kind = next((one for one in get_args(Order) if one == order), None)
    if kind is None:
        raise InvalidRequestError(f"--order {order[:80]!r} is unknown; there are: {', '.join(get_args(Order))}", field="order")
    ask_cluster(store, store.facts(name))
    query = ShotQuery(states=states, reviews=reviews, assignee=assignee, order=kind)
    if wants_json():
        from gateway.cli.documents import shots_document

        say_json(shots_document(store, name, query, limit))
        return
    table = Table("shot", "state", "risk", "review", "by", "what", box=None, pad_edge=False)
    for shot in store.shots(name, query, limit):
        record, decision = shot.record, shot.decision
        who = decision.assignee or decision.reviewer if decision is not None else ""
        said = decision.note if decision is not None else ""
        what = said or next(iter(reasons_of(record)), "")
        table.add_row(record.id, record.state, f"{risk_of(record):.2f}", shot.review, printable(who), printable(what))
    say_table(table)
    _say_hidden(store.count(name, query) - limit)


def progress_now(store: BatchStore, name: str) -> Progress:
    """Return the progress of a batch now.

    Raises:
        BatchNotFoundError: there is no such batch.
    """
    return progress_from(store.work(name), now_s=time.time())


def counts(progress: Progress) -> str:
    """Return the counts of a batch in words, such as `20 shots, 12 done (1 to look at), 2 running, 6 waiting`."""
    look = f" ({progress.look} to look at)" if progress.look else ""
    parts = [f"{progress.total} shots", f"{progress.done} done{look}"]
    others = {state: getattr(progress, state) for state in ("undubbed", "failed", "cancelled", "running", "waiting")}
    return ", ".join([*parts, *(f"{count} {state}" for state, count in others.items() if count)])


def pace(progress: Progress) -> str:
    """Return speed and time left in words, with a comma in front; empty: no shot is done, or none is running."""
    if progress.frames_per_second is None or progress.seconds_left is None or not progress.running:
        return ""
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {progress.frames_per_second:.1f} frames a second, about {hours}:{minutes:02d}:{seconds:02d} left"


def show_end(store: BatchStore, name: str) -> int:
    """Print how a batch ended and what is wrong with its shots, and return the exit code.

    0: every shot is done or cancelled. 20: shots are left. Otherwise the exit code of a shot that failed or has no dubbed frame.
    """
    failed, undubbed = (
        [shot.record for shot in store.shots(name, ShotQuery(states=[state]))] for state in (ShotState.FAILED, ShotState.UNDUBBED)
    )
    for state, wrong in ((ShotState.FAILED, failed), (ShotState.UNDUBBED, undubbed)):
        for record in wrong[:_SHOWN_FAILURES]:
            say_warning(f"{record.id}: {record.error or '; '.join(record.look)}", to_quiet=True)
        if len(wrong) > _SHOWN_FAILURES:
            say_to_quiet(f"{len(wrong) - _SHOWN_FAILURES} more shots are {state}: dubstage batch status {name} --only {state}")
    progress = progress_now(store, name)
    say_result(f"batch {name}: {counts(progress)}")
    if failed or undubbed:
        from gateway.batch.worker import exit_code_of

        codes = {exit_code_of(record) for record in (*failed, *undubbed)}
        return next((code for code in _BY_URGENCY if code in codes), UnexpectedError.exit_code)
    return TransientError.exit_code if progress.left else 0


def _cells(record: ShotRecord) -> tuple[str, ...]:
    done = record.state in WRITTEN
    what = record.error if not done else "; ".join([*(f"look: {reason}" for reason in record.look), *record.warnings])
    return (
        record.id,
        record.state,
        str(record.attempts),
        str(record.frames) if done else "",
        str(record.frames_dubbed) if done else "",
        f"{record.r_opening:.2f}" if record.r_opening is not None else "",
        f"{record.seconds:.0f} s" if record.seconds else "",
        printable(what or (record.worker if record.state is ShotState.RUNNING else "")),
    )


class BatchProgress:
    """Shows how many shots of a batch have ended, the speed and the time left: a bar on a terminal, otherwise lines.

    If stderr is not a terminal, a line is printed only if something changed, and at most one in LINE_SECONDS.
    """

    def __init__(self, name: str) -> None:
        self._printed_at, self._printed = float("-inf"), ""
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
        if line != self._printed and time.monotonic() - self._printed_at >= LINE_SECONDS:
            self._printed_at, self._printed = time.monotonic(), line
            say(line)


def watch_batch(store: BatchStore, name: str) -> int:
    """Show the progress of a batch until every shot has ended, and return the exit code.

    In a cluster, the watch also ends when no Job works on the batch any more. Elsewhere nothing tells that a worker was killed: its
    shot counts as running.
    """
    facts = store.facts(name)
    said: set[str] = set()
    with BatchProgress(name) as shown:
        for progress, notes in _snapshots(store, facts):
            for note in notes:
                if note not in said:
                    said.add(note)
                    say(note)
            shown.update(progress)
    return show_end(store, name)


def _snapshots(store: BatchStore, facts: BatchFacts) -> Iterator[tuple[Progress, tuple[str, ...]]]:
    """Yield the progress of a batch and notes for a person, again and again until the batch has ended."""
    if facts.engine == "kubernetes":
        from gateway.batch.kubernetes import open_engine_of

        for snapshot in open_engine_of(facts).watch(store, facts.name):
            yield progress_now(store, facts.name), snapshot.notes
        return
    answered = time.monotonic()
    while True:
        try:
            progress = progress_now(store, facts.name)
        except DubstageError as error:
            if not error.retryable or time.monotonic() - answered > PATIENCE_S:
                raise
            time.sleep(POLL_SECONDS)
            continue
        answered = time.monotonic()
        idle = f"no shot is running now: submit the manifest of batch {facts.name} again to go on"
        yield progress, (idle,) if progress.left and not progress.running else ()
        if progress.ended:
            return
        time.sleep(POLL_SECONDS)
