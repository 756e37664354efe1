"""Table of evaluations: one row a method or configuration, the mean over clips and the worst clip, as JSON and as Markdown.

A table grows evaluation by evaluation: the module knows what the rows need, their results so far, and the files of the table. A
row may replace networks of the installation for its evaluation, for example by the networks of an ablation.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from gateway.stages.interface import STAGE_NAMES
from gateway.stages.opening import weights_of
from research.evaluation.results import (
    Configuration,
    KeptResults,
    TableRow,
    check_writable,
    file_errors_named,
    reported,
    write_text,
)
from research.evaluation.targets import over_clips
from research.evaluation.types import COSTS, METRICS, VARIANTS, Variant
from services.common.errors import InvalidRequestError

Better = Literal["higher", "lower", "one", "zero"]

_LEGEND: Final = "Each cell has the mean over clips and, in brackets, the worst clip. `-`: not measured."
"""A line of every table."""
_TIME: Final = (
    "The speech is used at its own time. `aligned_`: figures of `full_aligned`, whose speech is moved by the measured lag. "
    "`delay_ms`: the median over clips."
)

_AGAINST_M: Final = {"mouth_psnr_minus_m": "mouth_psnr_db", "mouth_lmd_over_m": "mouth_lmd_px"}
_PAPER: Final = (
    "nme",
    "photometric_error",
    "ssiou",
    "expression_error",
    "landmark_error_px",
    "fitting_error",
    "sync_distance",
    "mouth_distance",
    "face_distance",
    "commanded_opening_correlation",
    "lpips",
    "fid",
    "hs",
    "hs_velocity",
)
CONTROLS: Final = ("wrong_audio_r", "oracle_psnr_minus_m")
_ALIGNED: Final = {
    "aligned_r": "mouth_opening_correlation",
    "aligned_lmd_px": "mouth_lmd_px",
    "aligned_psnr_db": "mouth_psnr_db",
}
"""Figures of `full_aligned`, which stand beside those at the true time."""
_HEADS: Final = {
    "hs_own_range": ("output", "hs_own_range"),
    "still_hs": ("still", "hs"),
    "still_hs_own_range": ("still", "hs_own_range"),
}
"""Row and figure of head_motion.py by name. The head that stands still is the control of HS."""
FIGURES: Final[tuple[str, ...]] = (*METRICS, *_ALIGNED, *_AGAINST_M, *CONTROLS, *_PAPER, *_HEADS, *COSTS)
"""Metrics of a row in their order; a metric that no clip has is left out of the Markdown."""

_LOWER: Final = frozenset(
    {
        "fastest_step_ratio",
        "silence_opening",
        "mouth_lmd_px",
        "mouth_lmd_over_m",
        "aligned_lmd_px",
        "wrong_audio_r",
        "nme",
        "photometric_error",
        "expression_error",
        "landmark_error_px",
    }
    | {"tint_alarms", "nostril_alarms", "low_contrast_excess", "lip_jump_ratio", "clothing_moved"}
    | {"fitting_error", "sync_distance", "mouth_distance", "face_distance", "lpips", "fid", *COSTS}
)
_ONE: Final = frozenset(name for name in METRICS if name.endswith("_ratio")) - _LOWER
_ZERO: Final = frozenset(name for name in METRICS if name.endswith("_ms"))
_GROUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Picture and mouth", (*METRICS, *_ALIGNED, *_AGAINST_M, *CONTROLS)),
    ("Figures of the papers, and cost", (*_PAPER, *_HEADS, *COSTS)),
)
ENDING: Final = ".md"


@dataclass(frozen=True, slots=True)
class RefusedClip:
    """A clip that a configuration could not be evaluated on, with the reason."""

    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilledRow:
    """A row with its metrics.

    Attributes:
        row: what it shows.
        per_clip: metrics by name, by clip; NaN is left out.
        refused: clips without metrics.
        missing: why the row has no metrics at all, such as weights that were not given; "": it has some.
    """

    row: TableRow
    per_clip: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: tuple[RefusedClip, ...] = ()
    missing: str = ""

    def on_clips(self, clips: Collection[str]) -> FilledRow:
        """Return the row of some of its clips."""
        return replace(self, per_clip={clip: metrics for clip, metrics in self.per_clip.items() if clip in clips})

    def mean(self, name: str) -> float:
        """Return the mean (targets.over_clips) of a metric over the clips that have it; NaN: none has it."""
        values = self._values(name)
        return over_clips(name, values) if values else math.nan

    def worst(self, name: str) -> float:
        """Return a metric of its worst clip; NaN: no clip has the metric."""
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
    """Return which values of a metric are good."""
    if name in _ONE:
        return "one"
    if name in _ZERO:
        return "zero"
    return "lower" if name in _LOWER else "higher"


def metrics_of(document: Mapping[str, Any], variant: str) -> dict[str, float]:
    """Return FIGURES of one clip from its document (results.clip_document); what was not measured is left out.

    Args:
        variant: variant to read the metrics of.
    """
    variants = document["variants"]
    shown = variants.get(variant, {})
    figures: dict[str, float | None] = {name: shown.get(name) for name in METRICS}
    figures |= {name: shown.get("paper", {}).get(name) for name in _PAPER}
    # A renderer that takes no warped texture reports 0: nothing was fitted.
    figures["fitting_error"] = figures["fitting_error"] or None
    figures |= {name: document.get("cost", {}).get(name) for name in COSTS}
    still = variants.get("mean_mouth", {})
    oracle = variants.get("oracle_full", {})
    figures["mouth_psnr_minus_m"] = _apart(shown.get("mouth_psnr_db"), still.get("mouth_psnr_db"))
    figures["oracle_psnr_minus_m"] = _apart(oracle.get("mouth_psnr_db"), still.get("mouth_psnr_db"))
    distance, still_distance = shown.get("mouth_lmd_px"), still.get("mouth_lmd_px")
    figures["mouth_lmd_over_m"] = distance / still_distance if distance is not None and still_distance else None
    figures |= {name: variants.get("full_aligned", {}).get(of) for name, of in _ALIGNED.items()}
    figures |= {name: document.get("head_motion", {}).get(row, {}).get(of) for name, (row, of) in _HEADS.items()}
    figures["wrong_audio_r"] = variants.get("wrong_audio", {}).get("mouth_opening_correlation")
    return {name: float(value) for name, value in figures.items() if value is not None}


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
    """Return the table as Markdown: means with the worst clip in brackets, what could not be evaluated, and the papers' metrics."""
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
    yield _TIME
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
    published = reported()
    methods = [name for name in dict.fromkeys(filled.row.of.method for filled in rows) if name in published]
    if methods:
        yield from ("", "## What the papers report", "", "On other data than the table above, so not to be compared with it.", "")
        yield from ("| method | paper | data | reported |", "|---|---|---|---|")
        for name in methods:
            yield f"| `{name}` | {published[name]['paper']} | {published[name]['data']} | {published[name]['figures']} |"


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


class TableRun:
    """The rows of a table with their results so far.

    Args:
        title: heading of the table.
        variants: variants that every row needs; a row needs its own variant too.
        path: Markdown file.
    """

    def __init__(self, title: str, rows: Sequence[TableRow], variants: Sequence[Variant], path: Path, kept: KeptResults) -> None:
        self._title = title
        self._rows = rows
        self._variants = variants
        self._path = path
        self._kept = kept
        self._documents: dict[Configuration, dict[str, dict[str, Any]]] = {}
        self._refused: dict[Configuration, list[RefusedClip]] = {}
        self._missing: dict[str, str] = {}

    def configurations(self, weights: str) -> dict[Configuration, tuple[Variant, ...]]:
        """Return what is evaluated with these weights ("": the installation's), each with its variants in the order of VARIANTS."""
        wanted: dict[Configuration, set[Variant]] = {}
        for row in self._rows:
            if row.of.weights == weights:
                wanted.setdefault(row.of, set(self._variants)).add(row.variant)
        return {of: tuple(variant for variant in VARIANTS if variant in names) for of, names in wanted.items()}

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights that rows have, the installation's ("") among them."""
        return tuple(dict.fromkeys(row.of.weights for row in self._rows))

    def add(self, of: Configuration, clip: str, document: Mapping[str, Any]) -> None:
        """Add the document (results.clip_document) of one clip, which has a label of its own (`labels_of`)."""
        self._documents.setdefault(of, {})[clip] = dict(document)

    def refuse(self, of: Configuration, clip: str, reason: str) -> None:
        """Add a clip that cannot be evaluated, by its label."""
        self._refused.setdefault(of, []).append(RefusedClip(clip, reason))

    def lack(self, weights: str, reason: str) -> None:
        """Say why rows with these weights have no metrics."""
        self._missing[weights] = reason

    def filled(self) -> tuple[FilledRow, ...]:
        """Return the rows with their metrics."""
        return tuple(
            FilledRow(
                row=row,
                per_clip={clip: metrics_of(document, row.variant) for clip, document in self._documents.get(row.of, {}).items()},
                refused=tuple(self._refused.get(row.of, ())),
                missing=self._missing.get(row.of.weights, ""),
            )
            for row in self._rows
        )

    def write(self) -> None:
        """Write the Markdown file and the file of results.

        Raises:
            InvalidRequestError: a file cannot be written.
        """
        rows = self.filled()
        self._kept.write(rows_document(rows))
        write_text(self._path, markdown(self._title, rows), "table")


def labels_of(clips: Sequence[Path]) -> dict[Path, str]:
    """Return what a table calls each clip: the file name, or the shortest end of the path that no other clip has."""
    parts = {clip: Path(os.path.abspath(clip)).parts for clip in clips}
    endings = Counter(each[-length:] for each in set(parts.values()) for length in range(1, len(each) + 1))
    return {
        clip: str(Path(*next(own[-length:] for length in range(1, len(own) + 1) if endings[own[-length:]] == 1)))
        for clip, own in parts.items()
    }


def check_table_path(path: Path, results: Path, *, overwrite: bool = False) -> None:
    """Check that a table can be written to a path: a new Markdown file, or one that holds an older table.

    Args:
        path: the Markdown file.
        results: the JSON file of its results.
        overwrite: allow to replace a file of any content.

    Raises:
        InvalidRequestError: the name does not end with .md, is the name of the results, is no file, is a file that no table wrote,
            or cannot be written.
    """
    if path.suffix != ENDING:
        raise InvalidRequestError(f"{path} does not end with {ENDING}: the table is Markdown", field="table")
    if os.path.realpath(path) == os.path.realpath(results):
        raise InvalidRequestError(
            f"{path} cannot hold the table and its figures; give --table and --result two names", field="table"
        )
    with file_errors_named(path, "table"):
        if path.exists() and not path.is_file():
            raise InvalidRequestError(f"{path} is not a file; give the name of a Markdown file", field="table")
        if path.exists() and not overwrite and not is_table(path.read_text(encoding="utf-8", errors="replace")):
            raise InvalidRequestError(
                f"{path} exists, and no table wrote it; give another name, or replace it with --overwrite", field="table"
            )
    check_writable(path, "table")


@contextmanager
def overlaid(folder: Path | None) -> Iterator[None]:
    """Let stages that are started inside the block serve the files of a folder in place of their own files of the same names.

    Args:
        folder: as `dubstage export` writes it: one folder a stage, such as FOLDER/render. None: nothing changes.

    Raises:
        InvalidRequestError: the folder holds no folder of a stage with networks.
    """
    stages = [name for name in STAGE_NAMES if folder is not None and (folder / name).is_dir()]
    if folder is None:
        yield
        return
    if not stages:
        raise InvalidRequestError(
            f"{folder} holds none of the folders {', '.join(STAGE_NAMES)}: give a folder that `dubstage export` wrote",
            field="weights",
        )
    before = {name: os.environ.get(_variable(name)) for name in stages}
    with tempfile.TemporaryDirectory(prefix="dubstage-weights-") as together:
        try:
            for name in stages:
                merged = _merged(weights_of(name), folder / name, Path(together) / name)
                os.environ[_variable(name)] = str(merged)
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(_variable(name), None)
                else:
                    os.environ[_variable(name)] = value


def _merged(own: Path, other: Path, target: Path) -> Path:
    """Make a folder of links to the files of both folders; where a name is in both, to the other's."""
    target.mkdir()
    files = {path.name: path for path in (*own.iterdir(), *other.iterdir()) if path.is_file()}
    for name, path in files.items():
        (target / name).symlink_to(path.resolve())
    return target


def _variable(stage: str) -> str:
    return f"DUBSTAGE_{stage.upper()}_WEIGHTS"
