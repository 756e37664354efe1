"""The folder of a training set while it is made: its lock, the shards of its clips, and the list of what was left out."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.trainset.record import recorded_shards
from services.common.store.folder_lock import locked_folder
from services.common.store.full_disk import told_of_full_disk
from services.training.trainset.layout import CLIPS_A_SHARD, INCOMPLETE, REFUSED, shard_name

_WORKING: Final = ".working"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A clip, or a piece of a clip, that was left out.

    Attributes:
        file: path below the folder of the clips, or name of the piece.
        reason: the reason.
    """

    file: str
    reason: str


@contextmanager
def open_output(output: Path) -> Iterator[Path]:
    """Create the folder of a training set, keep other processes out of it, and yield a folder for temporary files.

    Raises:
        InvalidRequest: the folder cannot be written, or another process makes the set.
    """
    with locked_folder(output, f"{output}: another process makes this training set; wait for its end"):
        shutil.rmtree(output / _WORKING, ignore_errors=True)
        try:
            yield output / _WORKING
        finally:
            shutil.rmtree(output / _WORKING, ignore_errors=True)


def in_output(output: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to the folder of a training set.

    Raises:
        StorageFull: no space is left in the folder.
    """
    return told_of_full_disk(f"no space left in {output}: free some, and run the same command again", output)


class Shards:
    """The shards of a training set. A clip that has a shard keeps it; other clips fill up shards with room.

    Args:
        output: folder of the training set.
    """

    def __init__(self, output: Path) -> None:
        self._known = recorded_shards(output)
        self._counts = Counter(self._known.values())
        self._number = 0

    def of(self, name: str) -> str:
        """Return the shard of a clip."""
        if name not in self._known:
            while self._counts[shard_name(self._number)] >= CLIPS_A_SHARD:
                self._number += CLIPS_A_SHARD
            self._known[name] = shard_name(self._number)
            self._counts[self._known[name]] += 1
        return self._known[name]


def write_refused(output: Path, refusals: Iterable[Refusal]) -> None:
    """Write the list of what was left out."""
    _write_lines(output / REFUSED, ({"file": refusal.file, "reason": refusal.reason} for refusal in refusals))


def write_incomplete(output: Path, missing: Mapping[str, Mapping[str, str]]) -> None:
    """Write the list of what preparations could not make: reasons by clip, by name of the preparation."""
    lines = ({"clip": clip, "step": step, "reason": why} for step, reasons in missing.items() for clip, why in reasons.items())
    _write_lines(output / INCOMPLETE, lines)


def _write_lines(path: Path, lines: Iterable[Mapping[str, str]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    os.replace(partial, path)
