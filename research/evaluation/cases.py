"""Rows of a table of evaluations: every method, or the ablation of one method."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from research.evaluation.types import Variant
from services.common.errors import InvalidRequest
from services.common.methods import METHODS

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One configuration that is evaluated on a clip.

    Attributes:
        method: name of the method.
        weights: name of networks that take the place of the installation's own; "": none do.
        enrol_frames: usable frames that the renderer is adapted with; None: all.
        enrol_seconds: seconds of each enrolment part (folds.folds_of); None: as clips are split otherwise.
        steps: optimiser steps of the renderer's adaptation; 0: the renderer's own number.
        personalize: whether the networks are adapted to the person.
    """

    method: str
    weights: str = ""
    enrol_frames: int | None = None
    enrol_seconds: float | None = None
    steps: int = 0
    personalize: bool = True


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: name of the row.
        of: the configuration whose metrics it shows.
        variant: the variant whose metrics it shows.
    """

    label: str
    of: Configuration
    variant: Variant = "full"


def method_rows(*, enrol_frames: int | None = None, personalize: bool = True) -> tuple[TableRow, ...]:
    """Return one row for every method of the table of methods."""
    return tuple(TableRow(name, Configuration(method=name, enrol_frames=enrol_frames, personalize=personalize)) for name in METHODS)


def ablation_rows(name: str, *, enrol_frames: int | None = None, personalize: bool = True) -> tuple[TableRow, ...]:
    """Return the rows of a method's ablation (ablations.toml).

    Args:
        name: name of the method.
        enrol_frames: for rows that state no number.
        personalize: False: no row adapts the networks.

    Raises:
        InvalidRequest: the method has no ablation.
    """
    known = _read("ablations.toml")
    if name not in known:
        raise InvalidRequest(f"there is no ablation of {name[:80]!r}; there are {', '.join(known)}", field="ablation")
    return tuple(_row(name, row, enrol_frames, personalize) for row in known[name]["rows"])


def _row(method: str, row: Mapping[str, Any], enrol_frames: int | None, personalize: bool) -> TableRow:
    of = Configuration(
        method=method,
        weights=row.get("weights", ""),
        enrol_frames=row.get("enrol_frames", enrol_frames),
        steps=row.get("steps", 0),
        personalize=personalize and row.get("personalize", True),
    )
    return TableRow(row["label"], of, row.get("variant", "full"))


def seconds_rows(rows: Sequence[TableRow], seconds: Sequence[float]) -> tuple[TableRow, ...]:
    """Return one row for every row and length of enrolment, seconds; without lengths the rows themselves."""
    if not seconds:
        return tuple(rows)
    return tuple(
        replace(row, label=f"{row.label}, {each:g} s", of=replace(row.of, enrol_seconds=each)) for row in rows for each in seconds
    )


def check_weights(rows: Sequence[TableRow], given: Mapping[str, Path]) -> None:
    """Check that every folder of weights is asked for by a row, and exists.

    Raises:
        InvalidRequest: no row has such weights, or the folder is missing.
    """
    wanted = dict.fromkeys(row.of.weights for row in rows if row.of.weights)
    for name, folder in given.items():
        if name not in wanted:
            raise InvalidRequest(f"--weights {name}: no row of this table has them; rows have {_listed(wanted)}", field="weights")
        if not folder.is_dir():
            raise InvalidRequest(f"--weights {name}={folder}: there is no such folder", field="weights")


def reported() -> dict[str, dict[str, str]]:
    """Return what the papers report, by method: paper, data, figures."""
    return {name: dict(row) for name, row in _read("reported.toml").items()}


def _listed(names: Mapping[str, None]) -> str:
    return ", ".join(names) or "none"


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))
