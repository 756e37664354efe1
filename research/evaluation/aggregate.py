"""Scores of one variant from its runs: means over folds and speeches, with bootstrap intervals over blocks of frames.

Neighbouring frames are alike, so single frames are no independent samples. Blocks of one second are drawn with replacement within
each fold (circular block bootstrap, Politis & Romano 1992). Bilabials are drawn one by one. The runs of one fold show the same
video with several speeches, so they are no independent samples either: each draw is used for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from research.evaluation.delays import delay_ms, shift_ms
from research.evaluation.measures import PAPER_COLUMNS, RunMeasures, finite_mean
from research.evaluation.mouth_metrics import speaking_style_iou, spread_ratio
from research.evaluation.types import METRICS, Interval, VariantScores
from services.common.array_types import Float64
from services.common.wire.mouth_curves import TRIGGERS, Trigger, correlation, fastest

_MEAN_METRICS: Final = ("face_psnr_db", "face_ssim", "face_ms_ssim", "mouth_psnr_db", "mouth_ssim", "mouth_lmd_px")
_QUIET_SHARE: Final = 4
"""One step in so many counts for the flicker of the skin: those in which the skin of the truth changes least."""
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapSettings:
    """Settings of the confidence intervals: number of replicates, frames per block, and random seed."""

    replicates: int = 400
    block_frames: int = 25
    seed: int = 20_240_501


def _ratio(result: Float64, truth: Float64) -> float:
    below = finite_mean(truth)
    return finite_mean(result) / below if below > 0.0 else float("nan")


def _skin_flicker(result: Float64, truth: Float64) -> float:
    """Return how much the skin beside the mouth changes while that of the truth hardly does, divided by the truth's change."""
    finite = np.flatnonzero(np.isfinite(result) & np.isfinite(truth))
    quiet = finite[np.argsort(truth[finite], kind="stable")][: -(-len(finite) // _QUIET_SHARE)]
    return _ratio(result[quiet], truth[quiet])


def run_metrics(run: RunMeasures, frames: Indices, events: Indices) -> dict[str, float]:
    """Return the METRICS of one run that pooled_metrics does not return, over chosen frames and bilabials; a choice may repeat."""
    columns = run.columns
    metrics = {name: finite_mean(columns[name][frames]) for name in _MEAN_METRICS}
    opening = run.truth_opening[frames], run.result_opening[frames]
    metrics["mouth_opening_correlation"] = correlation(*opening)
    metrics["lip_width_correlation"] = correlation(run.truth_width[frames], run.result_width[frames])
    metrics["opening_spread_ratio"] = spread_ratio(*opening)
    metrics["lip_width_spread_ratio"] = spread_ratio(columns["truth_width_quick"][frames], columns["result_width_quick"][frames])
    metrics["sharpness_ratio"] = _ratio(columns["result_gradient"][frames], columns["truth_gradient"][frames])
    metrics["native_sharpness_ratio"] = _ratio(columns["result_native"][frames], columns["truth_native"][frames])
    metrics["frame_difference_ratio"] = _ratio(columns["result_step"][frames], columns["truth_step"][frames])
    metrics["skin_flicker_ratio"] = _skin_flicker(columns["result_skin_step"][frames], columns["truth_skin_step"][frames])
    metrics |= {name: finite_mean(columns[name][frames]) for name in ("tint_alarms", "nostril_alarms", "clothing_moved")}
    metrics["low_contrast_excess"] = finite_mean(columns["result_dull"][frames]) - finite_mean(columns["truth_dull"][frames])
    metrics["popping_ratio"] = _ratio(columns["result_change"][frames], columns["truth_change"][frames])
    metrics["seam_sharpness_ratio"] = _ratio(columns["result_seam"][frames], columns["truth_seam"][frames])
    metrics |= dict.fromkeys(("closure", "silence_opening"), float("nan"))
    if run.closures is not None and run.closures.truth[events].any():
        metrics["closure"] = float(run.closures.result[events][run.closures.truth[events]].mean())
    return metrics


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A choice of what a run is measured on, which may repeat.

    Attributes:
        frames: int [N], frames.
        phones: int [E] for each kind of phone.
    """

    run: RunMeasures
    frames: Indices
    phones: Mapping[Trigger, Indices]

    @staticmethod
    def of_all(run: RunMeasures) -> _Drawn:
        """Return the choice of everything."""
        return _Drawn(run, np.flatnonzero(run.measured), {kind: np.arange(len(truth)) for kind, (truth, _) in run.phones.items()})


def pooled_metrics(drawn: Sequence[_Drawn]) -> dict[str, float]:
    """Return the METRICS that runs give together, because one run may have too few frames or phones."""
    metrics: dict[str, float] = {}
    for name, column in (("fastest_step_ratio", "opening_step"), ("lip_jump_ratio", "lip_step")):
        truth, result = (
            fastest(np.concatenate([each.run.columns[f"{of}_{column}"][each.frames] for each in drawn]))
            for of in ("truth", "result")
        )
        metrics[name] = result / truth if truth > 0.0 else math.nan
    metrics["delay_ms"] = delay_ms(
        np.concatenate([each.run.truth_opening[each.frames] for each in drawn]),
        np.concatenate([each.run.delayed[:, each.frames] for each in drawn], axis=1),
    )
    for kind in TRIGGERS:
        pairs = [(*each.run.phones[kind], each.phones[kind]) for each in drawn if kind in each.run.phones]
        metrics[f"{kind}_shift_ms"] = math.nan
        if pairs:
            before, after = (np.concatenate([pair[of][pair[2]] for pair in pairs]) for of in (0, 1))
            metrics[f"{kind}_shift_ms"] = shift_ms(before, after, kind)
    return metrics


def _events(run: RunMeasures) -> int:
    return 0 if run.closures is None else len(run.closures.truth)


def _weighted(per_run: Sequence[dict[str, float]], runs: Sequence[RunMeasures], name: str) -> float:
    """Return the mean over runs, weighted by measured frames. Closure is weighted by the bilabials on which the truth closes."""
    values = np.array([metrics[name] for metrics in per_run])
    weights = np.array(
        [
            float(run.closures.truth.sum() if run.closures is not None else 0) if name == "closure" else float(run.measured.sum())
            for run in runs
        ]
    )
    counted = np.isfinite(values) & (weights > 0)
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else float("nan")


def _block_indices(generator: np.random.Generator, length: int, block: int) -> Indices:
    """Return the frames of a circular block bootstrap sample of `length` frames."""
    block = min(block, length)
    starts = generator.integers(0, length, size=-(-length // block))
    return np.asarray((starts[:, None] + np.arange(block)).ravel()[:length] % length, dtype=np.intp)


def _intervals(folds: Sequence[Sequence[RunMeasures]], settings: BootstrapSettings) -> dict[str, Interval]:
    generator = np.random.default_rng(settings.seed)
    runs = [run for fold in folds for run in fold]
    measured = [np.flatnonzero(np.any([run.measured for run in fold], axis=0)) for fold in folds]
    drawn: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(settings.replicates):
        per_run: list[dict[str, float]] = []
        pooled: list[_Drawn] = []
        for fold, rows in zip(folds, measured, strict=True):
            frames = rows[_block_indices(generator, len(rows), settings.block_frames)]
            events = generator.integers(0, max(1, _events(fold[0])), size=_events(fold[0]))
            per_run += [run_metrics(run, frames[run.measured[frames]], events) for run in fold]
            phones = {
                kind: generator.integers(0, max(1, len(truth)), size=len(truth)) for kind, (truth, _) in fold[0].phones.items()
            }
            pooled += [_Drawn(run, frames[run.measured[frames]], phones) for run in fold]
        for name, value in _metrics(per_run, runs, pooled).items():
            drawn[name].append(value)
    intervals: dict[str, Interval] = {}
    for name, values in drawn.items():
        finite = np.array(values)[np.isfinite(values)]
        if len(finite):
            low, high = np.percentile(finite, [2.5, 97.5])
            intervals[name] = Interval(float(low), float(high))
    return intervals


def _metrics(per_run: Sequence[dict[str, float]], runs: Sequence[RunMeasures], pooled: Sequence[_Drawn]) -> dict[str, float]:
    """Return all METRICS of the runs of a variant."""
    together = pooled_metrics(pooled)
    return {name: together[name] if name in together else _weighted(per_run, runs, name) for name in METRICS}


def _paper(runs: Sequence[RunMeasures]) -> dict[str, float]:
    per_run: list[dict[str, float]] = []
    for run in runs:
        row = dict(run.extras)
        row |= {name: finite_mean(run.columns[name]) for name in PAPER_COLUMNS}
        row["ssiou"] = speaking_style_iou(run.truth_opening, run.result_opening)
        if run.commanded is not None:
            row["commanded_opening_correlation"] = correlation(run.commanded, run.result_opening)
        per_run.append(row)
    names = sorted({name for row in per_run for name in row})
    filled = [{name: row.get(name, float("nan")) for name in names} for row in per_run]
    means = {name: _weighted(filled, runs, name) for name in names}
    return {name: value for name, value in means.items() if np.isfinite(value)}


def score(runs: Sequence[RunMeasures], speeches: int = 1, settings: BootstrapSettings | None = None) -> VariantScores:
    """Return the scores of one variant.

    Args:
        runs: one run per fold and speech, at least one; the runs of a fold are consecutive and have the same bilabials.
        speeches: runs per fold, more than 1 for wrong_audio. Frames are counted once.
        settings: settings of the intervals; None: the defaults.
    """
    folds = [[run for run in runs[start : start + speeches] if run.measured.any()] for start in range(0, len(runs), speeches)]
    usable = [run for fold in folds for run in fold]
    frames = sum(int(run.measured.sum()) for run in runs)
    total = sum(len(run.measured) for run in runs)
    if not usable:
        return VariantScores(dict.fromkeys(METRICS, float("nan")), {}, {}, 0, total // speeches, 0)
    per_run = [run_metrics(run, np.flatnonzero(run.measured), np.arange(_events(run))) for run in usable]
    return VariantScores(
        metrics=_metrics(per_run, usable, [_Drawn.of_all(run) for run in usable]),
        intervals=_intervals([fold for fold in folds if fold], settings or BootstrapSettings()),
        paper=_paper(usable),
        frames=frames // speeches,
        passed_through=(total - frames) // speeches,
        lost_faces=math.ceil(sum(run.lost_faces for run in usable) / speeches),
    )
