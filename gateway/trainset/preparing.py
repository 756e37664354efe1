"""The preparations of a training set: what the stages add before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gateway.trainset.build import BuildOrder, Progress
from gateway.trainset.clip_files import ClipFiles
from gateway.trainset.made import Say
from gateway.trainset.output_folder import in_output, open_output, write_incomplete
from services.common.errors import DubstageError
from services.training.trainset.manifest import ClipRow, read_manifest, write_manifest


class Step(Protocol):
    """A preparation, as `services.training.networks.Preparation` describes it. That module imports PyTorch."""

    @property
    def name(self) -> str:
        """Name of the preparation."""
        ...

    @property
    def prepare(self) -> Callable[[Path, Path, int, Callable[[int, int], None]], Mapping[str, str]]:
        """Completes a set: (set, clips, processes, progress) -> reasons by clip for what is missing."""
        ...


def prepare(order: BuildOrder, steps: Sequence[Step], progress: Progress, say: Say) -> list[ClipRow]:
    """Run the preparations over a set, note the origin of the phone labels in the manifest, and return the manifest's rows.

    An error of one preparation does not keep the others from their work.

    Args:
        order: what the set was made from.
        steps: the preparations in their order.
        progress: shows a preparation's progress.
        say: tells the user what a preparation could not make.

    Raises:
        DubstageError: a preparation ended with this error.
        StorageFull: no space is left for the set.
    """
    missing: dict[str, Mapping[str, str]] = {}
    failed: DubstageError | None = None
    with open_output(order.output), in_output(order.output):
        for step in steps:
            try:
                missing[step.name] = step.prepare(order.output, order.folder, max(1, order.processes), _shown(step.name, progress))
            except DubstageError as error:
                failed = failed or error
                say(f"{step.name}: {error.message}")
                continue
            for clip, reason in missing[step.name].items():
                say(f"{step.name}: {clip}: {reason}")
        rows = [
            replace(row, phones=ClipFiles(order.output, row.shard, row.name).phones_origin()) for row in read_manifest(order.output)
        ]
        write_manifest(order.output, rows)
        write_incomplete(order.output, missing)
    if failed is not None:
        raise failed
    return rows


def _shown(name: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
