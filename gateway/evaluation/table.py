"""Table of evaluations: one row a method or configuration, the mean over clips and the worst clip, as JSON and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.evaluation.cases import TableRow, reported
from gateway.evaluation.types import COSTS, METRICS

Better = Literal["higher", "lower", "one", "zero"]

_LEGEND: Final = "Each cell has the mean over clips and, in brackets, the worst clip. `-`: not measured."
"""A line of every table."""

_AGAINST_M: Final = {"mouth_psnr_minus_m": "mouth_psnr_db", "mouth_lmd_over_m": "mouth_lmd_px"}
_PAPER: Final = (
    "nme",
    "photometric_error",
    "ssiou",
    "expression_error",
    "landmark_error_px",
    "fitting_error",
    "sync_distance",
    "commanded_opening_correlation",
    "lpips",
    "fid",
    "hs",
    "hs_velocity",
)
CONTROLS: Final = ("wrong_audio_r", "oracle_psnr_minus_m")
FIGURES: Final[tuple[str, ...]] = (*METRICS, *_AGAINST_M, *CONTROLS, *_PAPER, *COSTS)
"""Figures of a row in their order; a figure that no clip has is left out of the Markdown."""

_LOWER: Final = frozenset(
    {
        "fastest_step_ratio",
        "silence_opening",
        "mouth_lmd_px",
        "mouth_lmd_over_m",
        "wrong_audio_r",
        "nme",
        "photometric_error",
        "expression_error",
        "landmark_error_px",
    }
    | {"fitting_error", "sync_distance", "lpips", "fid", *COSTS}
)
_ONE: Final = frozenset(name for name in METRICS if name.endswith("_ratio")) - _LOWER
_ZERO: Final = frozenset(name for name in METRICS if name.endswith("_shift_ms"))
_GROUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Picture and mouth", (*METRICS, *_AGAINST_M, *CONTROLS)),
    ("Figures of the papers, and cost", (*_PAPER, *COSTS)),
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A clip that a configuration could not be evaluated on, with the reason."""

    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilledRow:
    """A row with its figures.

    Attributes:
        row: what it shows.
        per_clip: figures by name, by clip; NaN is left out.
        refused: clips without figures.
        missing: why the row has no figures at all, such as weights that were not given; "": it has some.
    """

    row: TableRow
    per_clip: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    missing: str = ""

    def mean(self, name: str) -> float:
        """Return the mean of a figure over the clips that have it; NaN: none has it."""
        values = self._values(name)
        return sum(values) / len(values) if values else math.nan

    def worst(self, name: str) -> float:
        """Return a figure of its worst clip; NaN: no clip has the figure."""
        values = self._values(name)
        if not values:
            return math.nan
        better = better_of(name)
        if better == "one":
            # A ratio is as bad as its inverse.
            return max(values, key=lambda value: abs(math.log(max(value, 1e-6))))
        if better == "zero":
            return max(values, key=abs)
        return max(values) if better == "lower" else min(values)

    def _values(self, name: str) -> list[float]:
        return [figures[name] for figures in self.per_clip.values() if name in figures]


def better_of(name: str) -> Better:
    """Return which values of a figure are good."""
    if name in _ONE:
        return "one"
    if name in _ZERO:
        return "zero"
    return "lower" if name in _LOWER else "higher"


def figures_of(document: Mapping[str, Any], variant: str) -> dict[str, float]:
    """Return FIGURES of one clip from its document (result_json.clip_document); what was not measured is left out.

    Args:
        document: result of the clip.
        variant: variant whose figures are wanted.
    """
    variants = document["variants"]
    shown = variants.get(variant, {})
    found: dict[str, float | None] = {name: shown.get(name) for name in METRICS}
    found |= {name: shown.get("paper", {}).get(name) for name in _PAPER}
    # A renderer that takes no warped texture reports 0: nothing was fitted.
    found["fitting_error"] = found["fitting_error"] or None
    found |= {name: document.get("cost", {}).get(name) for name in COSTS}
    still = variants.get("mean_mouth", {})
    oracle = variants.get("oracle_full", {})
    found["mouth_psnr_minus_m"] = _apart(shown.get("mouth_psnr_db"), still.get("mouth_psnr_db"))
    found["oracle_psnr_minus_m"] = _apart(oracle.get("mouth_psnr_db"), still.get("mouth_psnr_db"))
    distance, still_distance = shown.get("mouth_lmd_px"), still.get("mouth_lmd_px")
    found["mouth_lmd_over_m"] = distance / still_distance if distance is not None and still_distance else None
    found["wrong_audio_r"] = variants.get("wrong_audio", {}).get("mouth_opening_correlation")
    return {name: float(value) for name, value in found.items() if value is not None}


def rows_document(rows: Sequence[FilledRow]) -> list[dict[str, Any]]:
    """Return the rows as dictionaries, lists, numbers and text."""
    return [
        {
            "label": filled.row.label,
            "variant": filled.row.variant,
            "clips": list(filled.per_clip),
            "mean": _finite({name: filled.mean(name) for name in FIGURES}),
            "worst": _finite({name: filled.worst(name) for name in FIGURES}),
            "refused": [{"clip": refused.clip, "reason": refused.reason} for refused in filled.refused],
            "missing": filled.missing,
        }
        for filled in rows
    ]


def markdown(title: str, rows: Sequence[FilledRow]) -> str:
    """Return the table as Markdown: means with the worst clip in brackets, what could not be evaluated, and the papers' figures."""
    return "\n".join((*_lines(title, rows), ""))


def is_table(text: str) -> bool:
    """Return whether a Markdown text is a table of evaluations."""
    return _LEGEND in text.splitlines()


def _lines(title: str, rows: Sequence[FilledRow]) -> Iterator[str]:
    clips = list(dict.fromkeys(clip for filled in rows for clip in filled.per_clip))
    yield f"# {title}"
    yield ""
    yield f"Clips ({len(clips)}): {', '.join(clips) or 'none'}."
    yield _LEGEND
    for heading, names in _GROUPS:
        shown = [name for name in names if any(not math.isnan(filled.mean(name)) for filled in rows)]
        if not shown:
            continue
        yield from ("", f"## {heading}", "")
        yield f"| | clips | {' | '.join(f'`{name}`' for name in shown)} |"
        yield "|---|" + "---|" * (1 + len(shown))
        for filled in rows:
            yield f"| {filled.row.label} | {len(filled.per_clip)} | {' | '.join(_cell(filled, name) for name in shown)} |"
    notes = [f"{filled.row.label}: {filled.missing}" for filled in rows if filled.missing]
    notes += [f"{filled.row.label}, {refused.clip}: {refused.reason}" for filled in rows for refused in filled.refused]
    if notes:
        yield from ("", "## Not evaluated", "", *(f"* {note}" for note in notes))
    told = reported()
    methods = [name for name in dict.fromkeys(filled.row.of.method for filled in rows) if name in told]
    if methods:
        yield from ("", "## What the papers report", "", "On other data than the table above, so not to be compared with it.", "")
        yield from ("| method | paper | data | reported |", "|---|---|---|---|")
        for name in methods:
            yield f"| `{name}` | {told[name]['paper']} | {told[name]['data']} | {told[name]['figures']} |"


def _cell(filled: FilledRow, name: str) -> str:
    mean, worst = filled.mean(name), filled.worst(name)
    return "-" if math.isnan(mean) else f"{_figure(mean)} ({_figure(worst)})"


def _figure(value: float) -> str:
    """Return a number with three or four significant digits, without an exponent."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:.{digits}f}"


def _apart(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in values.items() if math.isfinite(value)}
