"""The result of an evaluation as JSON: {"clips": [{"clip", "lag_frames", "variants": {NAME: {metric: number}}}]}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.evaluation.result_file import check_writable, told, write_whole
from gateway.evaluation.targets import check_targets, cost_means, head_means, variant_means
from gateway.evaluation.types import METRICS, VARIANTS, ClipResult, VariantScores
from services.common.errors import InvalidRequest

_DIGITS = 5


def _number(value: float) -> float | None:
    """Return a rounded number; None for NaN, which JSON does not have: the figure could not be measured."""
    return round(float(value), _DIGITS) if math.isfinite(value) else None


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _variant(scores: VariantScores) -> dict[str, Any]:
    row: dict[str, Any] = {name: _number(scores.metrics[name]) for name in METRICS}
    row["intervals"] = {name: [_number(interval.low), _number(interval.high)] for name, interval in scores.intervals.items()}
    row["paper"] = _numbers(scores.paper)
    row["frames"] = scores.frames
    row["passed_through"] = scores.passed_through
    row["lost_faces"] = scores.lost_faces
    return row


def _head_rows(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    return {row: _numbers(figures) for row, figures in scores.items()}


def clip_document(result: ClipResult) -> dict[str, Any]:
    """Return the result of one clip as dictionaries, lists, numbers and text."""
    return {
        "clip": result.clip,
        "lag_frames": result.lag_frames,
        "folds": [
            {
                "enrol": [fold.fold.enrol.start, fold.fold.enrol.stop],
                "test": [fold.fold.test.start, fold.fold.test.stop],
                "lag_frames": fold.lag_frames,
                "lag_doubt": fold.lag_doubt,
            }
            for fold in result.folds
        ],
        "variants": {name: _variant(result.variants[name]) for name in VARIANTS if name in result.variants},
        "cost": _numbers(result.cost),
        **({"head_motion": _head_rows(result.head_motion.scores)} if result.head_motion is not None else {}),
    }


def to_json(results: Sequence[ClipResult], method: str) -> dict[str, Any]:
    """Return the results as dictionaries, lists, numbers and text.

    Each variant has METRICS, `intervals` (95 %, [low, high]), `paper` (the figures of the papers) and counts of frames.
    Every clip and the top level have `cost` (cost.py). The top level has `means` (over clips) and `targets`. If the method moves
    the head, every clip and the top level have `head_motion`, {row: {figure: number}} (head_scores.py).
    """
    heads = head_means(results)
    return {
        "method": method,
        "clips": [clip_document(result) for result in results],
        "means": {
            name: _numbers(variant_means(results, name)) for name in VARIANTS if any(name in result.variants for result in results)
        },
        "cost": _numbers(cost_means(results)),
        **({"head_motion": _head_rows(heads)} if heads else {}),
        "targets": [
            {"target": check.target.text, "value": _number(check.value), "reached": check.reached}
            for check in check_targets(results)
        ],
    }


def write_json(path: Path, results: Sequence[ClipResult], method: str) -> None:
    """Write the results to a JSON file. Missing folders are created. The file is replaced as a whole, or keeps its old content.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    write_whole(path, json.dumps(to_json(results, method), indent=2, allow_nan=False) + "\n", "json")


def check_json_place(path: Path, inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Check that the results can be written to a place, and that they replace nothing but older results.

    Args:
        path: the JSON file. `write_json` creates missing folders.
        inputs: files that the evaluation reads.
        overwrite: allow to replace a file of any content.

    Raises:
        InvalidRequest: `path` is one of the inputs, exists and holds no results of an evaluation, or cannot be written.
    """
    with told(path, "json"):
        for file in inputs:
            if path.exists() and file.exists() and path.samefile(file):
                raise InvalidRequest(f"{path} is read by this command ({file}); give the results another name", field="json")
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"{path} is not a file; give the name of a JSON file", field="json")
        if path.exists() and not overwrite and not _holds_results(path):
            raise InvalidRequest(
                f"{path} exists and holds no results of an evaluation; give another name, or replace it with --overwrite",
                field="json",
            )
    check_writable(path, "json")


def _holds_results(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"method", "clips"} <= set(document)
