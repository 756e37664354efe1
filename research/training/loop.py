"""The loop around a training's steps: batches ahead, progress, curves, checks, checkpoints, early end, card."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final, Generic, TypeVar

import cv2
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.utils.data import DataLoader, Dataset

from research.training.run_folder import CARD, RunFolder, TrainingProgress, card
from research.training.training import Training
from services.common.errors import InvalidRequestError

BatchT = TypeVar("BatchT")
_REPORT_EVERY: Final = 25


def train(training: Training[Any], folder: RunFolder, *, resume: bool, title: str, console: Console) -> TrainingProgress:
    """Train, or go on training, to the last step or to the early end; return how far the run came.

    A run that was killed goes on from its last checkpoint and comes to the same bytes as a run that nothing interrupted.

    Args:
        training: the training before its first step.
        folder: folder of the run. The caller holds the folder (`RunFolder.held`) if other processes may train in it.
        resume: whether to go on with the run that the folder holds.
        title: name of the network, beside the progress bar.
        console: where progress is shown.

    Raises:
        InvalidRequestError: the folder holds another run, the processes cannot share the batches of a step, or a loss is not
            finite.
    """
    settings, device = training.settings, training.device
    if settings.batches % device.num_processes:
        raise InvalidRequestError(
            f"loop.batches is {settings.batches}: {device.num_processes} processes cannot share that number; give a multiple",
            field="config",
        )
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(1)
    progress = TrainingProgress()
    held = folder.checkpoint(resume=resume)
    # The first process writes only after all have looked at the folder: another would take the new checkpoint for an earlier run's.
    device.mean(0.0)
    if device.is_first:
        held = folder.begin(resume=resume)
    if held is not None:
        progress = TrainingProgress(**held["progress"])
        for name, part in training.parts().items():
            part.load_state_dict(held["parts"][name])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not device.is_first) as bar:
        task = bar.add_task(title, total=settings.steps, completed=progress.step)
        if held is None:
            _check(training, folder, progress, bar.console)
        sums: dict[str, list[float]] = {}
        # A run that ended early, and was killed before its card was written, has nothing left to learn.
        first = settings.steps if _is_over(training, progress) else progress.step
        for step, batches in _batches(training, first):
            for name, value in training.learn(step, batches).items():
                sums.setdefault(name, []).append(_finite(device.mean(value), name, step))
            progress.step = step + 1
            bar.update(task, completed=progress.step)
            is_check = progress.step % settings.check_every == 0 or progress.step == settings.steps
            if is_check or progress.step % _REPORT_EVERY == 0:
                if device.is_first:
                    folder.log(progress.step, {name: sum(values) / len(values) for name, values in sums.items()})
                sums = {}
            if is_check and _check(training, folder, progress, bar.console):
                break
    if device.is_first:
        training.finish(folder.path)
        text = card(title, folder.config, training.clips, progress)
        (folder.path / CARD).write_text(text, encoding="utf-8")
    return progress


def _finite(value: float, name: str, step: int) -> float:
    if not math.isfinite(value):
        raise InvalidRequestError(
            f"step {step}: {name} is {value}: the training has diverged; begin a new run with a lower optimiser.learning_rate",
            field="config",
        )
    return value


def _check(training: Training[Any], folder: RunFolder, progress: TrainingProgress, console: Console) -> bool:
    """Check, keep the network if it is the best, write the checkpoint; return whether the training ends early."""
    if training.device.is_first:
        check = training.check(progress.step, folder.path)
        folder.log(progress.step, check.metrics if check.score is None else {**check.metrics, "score": check.score})
        if check.score is None or progress.best_score is None or check.score > progress.best_score:
            progress.best_step, progress.best_score, progress.worse = progress.step, check.score, 0
            progress.figures = dict(check.metrics)
            training.write(folder.path)
        else:
            progress.worse += 1
        line = "  ".join(f"{name} {value:.4g}" for name, value in check.metrics.items())
        console.print(f"step {progress.step}  {line}", markup=False, highlight=False)
        if progress.step:  # a curve of one point shows nothing
            # Before the checkpoint, so that a run that is killed after its last checkpoint has all its curves.
            folder.draw_curves()
        folder.save({"parts": {name: part.state_dict() for name, part in training.parts().items()}, "progress": asdict(progress)})
    progress.worse = int(training.device.same_everywhere(progress.worse))
    return _is_over(training, progress)


def _is_over(training: Training[Any], progress: TrainingProgress) -> bool:
    """Return whether the training ends early."""
    return bool(training.settings.patience) and progress.worse >= training.settings.patience


def _batches(training: Training[BatchT], first: int) -> Iterator[tuple[int, Sequence[BatchT]]]:
    """Yield each step from `first` with this process's batches, which are prepared ahead of time."""
    settings, device = training.settings, training.device
    indices = range(device.rank, settings.batches, device.num_processes)
    order = [(step, index) for step in range(first, settings.steps) for index in indices]
    batches = iter(_prefetched_by_workers(training, order) if settings.workers else _prefetched(training.batch, order))
    for step in range(first, settings.steps):
        yield step, [next(batches) for _ in indices]


def _prefetched(batch: Callable[[int, int], BatchT], order: Sequence[tuple[int, int]]) -> Iterator[BatchT]:
    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(batch, *order[0]) if order else None
        for step_index in [*order[1:], None]:
            if following is None:
                return
            current = following.result()
            following = None if step_index is None else ahead.submit(batch, *step_index)
            yield current


def _prefetched_by_workers(training: Training[BatchT], order: Sequence[tuple[int, int]]) -> DataLoader[BatchT]:
    return DataLoader(
        _Batches(training, order),
        batch_size=None,
        shuffle=False,
        num_workers=training.settings.workers,
        collate_fn=_as_it_is,
        # A forked worker shares the clips that are in memory already.
        multiprocessing_context="fork",
    )


class _Batches(Dataset[BatchT], Generic[BatchT]):
    """The batches of a training by their position in its order."""

    def __init__(self, training: Training[BatchT], order: Sequence[tuple[int, int]]) -> None:
        self._training, self._order = training, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> BatchT:
        return self._training.batch(*self._order[position])


def _as_it_is(batch: BatchT) -> BatchT:
    return batch
