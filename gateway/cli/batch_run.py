"""`dubstage batch run`: one worker that dubs one shot, for any farm manager."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from gateway.batch.manifest import parse_rows
from gateway.batch.store import BatchStore
from gateway.batch.types import WRITTEN, ShotRecord, ShotState
from gateway.cli.app import run_async
from gateway.cli.batch_manifest import checked_manifest
from gateway.cli.console import say, say_error, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest

INDEX_VARIABLES: Final = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID")
"""Variables of the environment that hold the index of a worker: of a Kubernetes Job, and of a Slurm array."""
_NAME: Final = re.compile(r"[a-z0-9-]+")


def index_of(index: int | None, variable: str | None) -> int:
    """Return the index of the worker: `index`, else from the variable of the environment, else from one of `INDEX_VARIABLES`.

    Raises:
        InvalidRequest: both are given, or no variable holds an index.
    """
    if index is not None:
        if variable is not None:
            raise InvalidRequest("give --index or --index-from, not both", field="index")
        return index
    for name in (variable,) if variable is not None else INDEX_VARIABLES:
        text = os.environ.get(name, "")
        if re.fullmatch(r"[0-9]{1,9}", text):
            return int(text)
        if text or variable is not None:
            raise InvalidRequest(f"{name} must hold the index of a row, from 0, and holds {text[:40]!r}", field="index_from")
    raise InvalidRequest(
        f"no index was given: give --index NUMBER, --index-from VARIABLE, or set {' or '.join(INDEX_VARIABLES)}", field="index"
    )


def run_row(settings: GatewaySettings, store: BatchStore, batch: str, index: int, rows: str | None) -> int:
    """Dub one shot of a batch, print its result, and return the exit code.

    Args:
        settings: settings of the command.
        store: store of batches.
        batch: name of a batch; or file of a manifest, whose batch is created if there is none.
        index: row of the shot, from 0.
        rows: rows that the index counts, such as `0-99,105`; None: all.

    Raises:
        BatchNotFound: there is no such batch.
        InvalidRequest: the manifest is wrong, or there is no such row.
        DubstageError: the store of batches, the database or the data folder cannot be used.
    """
    name = store.facts(batch).name if _NAME.fullmatch(batch) else _batch_of(settings, store, Path(batch))
    total = len(store.manifest(name))
    chosen = range(total) if rows is None else parse_rows(rows)
    if rows is not None and index >= len(chosen):
        raise InvalidRequest(f"there is no row {index}: --rows {rows[:80]} has {len(chosen)} rows, counted from 0", field="index")
    if (row := chosen[index] if index < len(chosen) else index) >= total:
        raise InvalidRequest(f"there is no row {row}: batch {name} has the rows 0 to {total - 1}", field="index")
    record = _dubbed(settings, store, name, row)
    return _show(record)


def _batch_of(settings: GatewaySettings, store: BatchStore, path: Path) -> str:
    """Return the name of the batch of a manifest. Only the worker that creates the batch looks for files and actors."""
    manifest = checked_manifest(settings, path, None, check=False)
    if store.find(manifest.name) is None:
        manifest = checked_manifest(settings, path, None, check=True)
    return store.create(manifest, "farm").name


def _dubbed(settings: GatewaySettings, store: BatchStore, name: str, row: int) -> ShotRecord:
    from gateway.batch.worker import run_shot
    from gateway.batch.worker_context import open_worker_context

    records: list[ShotRecord] = []

    async def work() -> None:
        with StepProgress() as progress:
            async with open_worker_context(settings) as bench:
                records.append(await run_shot(bench, store, name, row, on_progress=progress))

    run_async(work())
    return records[0]


def _show(record: ShotRecord) -> int:
    """Print the result of a shot, and return the exit code."""
    from gateway.batch.worker import exit_code_of

    for warning in record.warnings:
        say_warning(warning)
    for reason in record.look:
        say_warning(f"look at this film: {reason}")
    if record.state in WRITTEN:
        say(f"{record.id}: {record.frames_dubbed} of {record.frames} frames dubbed")
        say_result(record.output)
    elif record.state is ShotState.CANCELLED:
        say(f"{record.id}: cancelled")
    else:
        say_error(f"{record.id}: {record.error}")
    return exit_code_of(record)
