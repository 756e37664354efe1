"""The result of an evaluation as JSON: {"clips": [{"clip", "lag_frames", "variants": {NAME: {metric: number}}}]}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.evaluation.targets import check_targets, head_means, variant_means
from gateway.evaluation.types import METRICS, VARIANTS, ClipResult, VariantScores

_DIGITS = 5


def _number(value: float) -> float | None:
    """JSON has no NaN: null says that a figure could not be measured."""
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


def to_json(results: Sequence[ClipResult], method: str = "ugc") -> dict[str, Any]:
    """Plain dictionaries and lists.

    Beside the twelve metrics a variant has `intervals` (95 %, [low, high]), `paper` (the paper's own figures) and
    counts of frames. Methods that move the head have `head_motion`, {row: {figure: number}} (head_scores.py), in every clip and
    at the top level, which also has `means` (over clips) and `targets`.
    """
    heads = head_means(results)
    return {
        "method": method,
        "clips": [
            {
                "clip": result.clip,
                "lag_frames": result.lag_frames,
                "folds": [
                    {
                        "enrol": [fold.fold.enrol.start, fold.fold.enrol.stop],
                        "test": [fold.fold.test.start, fold.fold.test.stop],
                        "lag_frames": fold.lag_frames,
                    }
                    for fold in result.folds
                ],
                "variants": {name: _variant(result.variants[name]) for name in VARIANTS if name in result.variants},
                **({"head_motion": _head_rows(result.head_motion.scores)} if result.head_motion is not None else {}),
            }
            for result in results
        ],
        "means": {
            name: _numbers(variant_means(results, name)) for name in VARIANTS if any(name in result.variants for result in results)
        },
        **({"head_motion": _head_rows(heads)} if heads else {}),
        "targets": [
            {"target": check.target.text, "value": _number(check.value), "reached": check.reached}
            for check in check_targets(results)
        ],
    }


def write_json(path: Path, results: Sequence[ClipResult], method: str = "ugc") -> None:
    """Write `to_json` to a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(results, method), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
