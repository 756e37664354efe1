"""Paces of the steps of operations on this machine, by which estimates of the time left are corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from gateway.dub.state.records import read_note, write_note
from gateway.operations.progress import StepCost, WholeProgress
from services.common.errors import DubstageError

_KEPT: Final = 8
"""Number of last operations of a method that correct an estimate."""
_LEAST_S: Final = 1.0
"""Least estimated seconds of a step whose time says something about the machine."""
_BELIEVED: Final = (0.2, 10.0)
"""Least and largest believed pace: a step that was taken from an earlier run takes no time."""
_Paces: Final = TypeAdapter(dict[str, dict[str, list[Annotated[float, Field(gt=0)]]]])


class StepPaces:
    """Measured over estimated times of the steps of earlier operations, in `steps.json` of the data folder.

    Which steps are slow differs from machine to machine: a step of two threads, or one of wide vectors, gains more from some
    processors than another step. Loss of the file or of an entry does no harm.

    Args:
        data_dir: data folder.
        method: method of the operation. Steps that no earlier operation of the method has measured take the paces of all methods.
    """

    def __init__(self, data_dir: Path, method: str) -> None:
        self._path = data_dir / "steps.json"
        self._method = method

    def of(self, steps: Sequence[StepCost]) -> Mapping[str, float]:
        """Return the pace of each step on this machine, by name; empty: nothing was measured yet. Blocks.

        A step that was never measured takes the median of all.
        """
        stored = self._read()
        if not stored:
            return {}
        usual = median([pace for by_method in stored.values() for paces in by_method.values() for pace in paces] or [1.0])
        measured: dict[str, float] = {}
        for step in steps:
            by_method = stored.get(step.name, {})
            paces = by_method.get(self._method) or [pace for paces in by_method.values() for pace in paces]
            measured[step.name] = median(paces or [usual])
        return measured

    def add(self, progress: WholeProgress) -> None:
        """Store the paces of an operation that has just ended. Blocks."""
        stored = self._read()
        for step, (spent_s, cost_s) in progress.measured().items():
            if cost_s >= _LEAST_S and _BELIEVED[0] <= spent_s / cost_s <= _BELIEVED[1]:
                paces = stored.setdefault(step, {}).setdefault(self._method, [])
                paces[:] = [*paces, spent_s / cost_s][-_KEPT:]
        # Work that needs the disk reports a full disk.
        with suppress(DubstageError, OSError):
            write_note(self._path, stored)

    def _read(self) -> dict[str, dict[str, list[float]]]:
        """Return the stored paces, by step and method."""
        try:
            return _Paces.validate_python(read_note(self._path) or {})
        except ValidationError:
            return {}
