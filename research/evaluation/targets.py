"""Quality targets of the method: means over clips, or medians (MEDIANS), some of them relative to the mean mouth M of the clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from research.evaluation.types import COSTS, MEDIANS, ClipResult, Variant
from services.common.array_types import Float64


@dataclass(frozen=True, slots=True)
class MetricTarget:
    """One target.

    Attributes:
        variant: measured variant.
        metric: name in METRICS or in `VariantScores.paper`.
        low: lower bound; None: no lower bound.
        high: upper bound; None: no upper bound.
        against: how the value is compared with that of mean_mouth: "" (not at all), "difference" or "ratio".
        worst_clip: whether the target applies to the worst clip. False: to the mean over clips, or to the median (MEDIANS).
    """

    variant: Variant
    metric: str
    low: float | None = None
    high: float | None = None
    against: Literal["", "difference", "ratio"] = ""
    worst_clip: bool = False

    @property
    def text(self) -> str:
        """Return the target in words, such as "full mouth_psnr_db >= M + 1.5"."""
        prefix = {"": "", "difference": "M + ", "ratio": "M x "}[self.against]
        where = ", every clip" if self.worst_clip else ""
        if self.low is not None and self.high is not None:
            return f"{self.variant} {self.metric} {prefix}{self.low:g} to {prefix}{self.high:g}{where}"
        sign, bound = (">=", self.low) if self.low is not None else ("<=", self.high)
        return f"{self.variant} {self.metric} {sign} {prefix}{bound:g}{where}"


TARGETS: Final[tuple[MetricTarget, ...]] = (
    MetricTarget("oracle_full", "mouth_psnr_db", low=4.0, against="difference"),
    MetricTarget("oracle_full", "mouth_ssim", low=0.87),
    MetricTarget("oracle_full", "mouth_lmd_px", high=1.1),
    MetricTarget("oracle_full", "mouth_opening_correlation", low=0.96),
    MetricTarget("oracle_full", "sharpness_ratio", low=0.7, high=1.3),
    MetricTarget("full", "mouth_psnr_db", low=1.5, against="difference"),
    MetricTarget("full", "mouth_psnr_db", low=0.5, against="difference", worst_clip=True),
    MetricTarget("full", "mouth_lmd_px", high=0.85, against="ratio"),
    MetricTarget("full", "mouth_opening_correlation", low=0.55),
    MetricTarget("wrong_audio", "mouth_opening_correlation", high=0.15),
    MetricTarget("full", "opening_spread_ratio", low=0.6, high=1.3),
    MetricTarget("full", "sharpness_ratio", low=0.7, high=1.3),
    MetricTarget("full", "frame_difference_ratio", low=0.85, high=1.2),
    MetricTarget("full", "closure", low=0.8),
    MetricTarget("full", "silence_opening", high=0.1),
    MetricTarget("full", "lip_width_spread_ratio", low=0.85),
    MetricTarget("full", "delay_ms", low=-10.0, high=10.0),
    MetricTarget("full", "vowel_shift_ms", low=-10.0, high=10.0),
    MetricTarget("full", "closure_shift_ms", low=-10.0, high=10.0),
    MetricTarget("full", "fastest_step_ratio", high=1.0),
    MetricTarget("wrong_audio", "commanded_opening_correlation", low=0.9),
)

HEAD_TARGETS: Final[tuple[MetricTarget, ...]] = (MetricTarget("full", "hs", low=0.85),)
"""Further targets of methods that move the head."""


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """A target with the measured value. `reached` is None if nothing was measured."""

    target: MetricTarget
    value: float
    reached: bool | None

    @property
    def passed(self) -> bool:
        """Whether the target was not missed. A target that was not measured is not missed."""
        return self.reached is not False

    def __str__(self) -> str:
        return f"{self.target.text}: {self.value:.3f}"


def _value(result: ClipResult, variant: Variant, metric: str) -> float:
    scores = result.variants.get(variant)
    if scores is None:
        return float("nan")
    return float(scores.metrics.get(metric, scores.paper.get(metric, float("nan"))))


def over_clips(metric: str, values: Sequence[float] | Float64) -> float:
    """Return the mean, or for MEDIANS the median, of a metric over clips (at least one)."""
    return float(np.median(values) if metric in MEDIANS else np.mean(values))


def variant_means(results: Sequence[ClipResult], variant: Variant) -> dict[str, float]:
    """Return the mean over clips (over_clips) of every metric, and every metric of the papers, of a variant that was measured."""
    names = {name for result in results if variant in result.variants for name in result.variants[variant].metrics}
    names |= {name for result in results if variant in result.variants for name in result.variants[variant].paper}
    means: dict[str, float] = {}
    for name in sorted(names):
        values = np.array([_value(result, variant, name) for result in results])
        finite = values[np.isfinite(values)]
        if len(finite):
            means[name] = over_clips(name, finite)
    return means


def check_target(results: Sequence[ClipResult], target: MetricTarget) -> TargetCheck:
    """Compare results with one target. A ratio is the ratio of means; a difference is the mean of differences."""
    values = np.array([_value(result, target.variant, target.metric) for result in results])
    references = np.array([_value(result, "mean_mouth", target.metric) for result in results])
    finite = np.isfinite(values) & (np.isfinite(references) | (target.against == ""))
    if not finite.any():
        return TargetCheck(target, float("nan"), None)
    values, references = values[finite], references[finite]
    if target.worst_clip:
        single = {"": values, "difference": values - references, "ratio": values / references}[target.against]
        value = float(single.min() if target.low is not None else single.max())
    elif target.against == "ratio":
        value = float(values.mean() / references.mean())
    else:
        value = over_clips(target.metric, values - references if target.against == "difference" else values)
    reached = (target.low is None or value >= target.low) and (target.high is None or value <= target.high)
    return TargetCheck(target, value, reached)


def check_targets(results: Sequence[ClipResult]) -> tuple[TargetCheck, ...]:
    """Compare results with TARGETS and, if the method moves the head, with HEAD_TARGETS."""
    moved = HEAD_TARGETS if any(result.head_motion is not None for result in results) else ()
    return tuple(check_target(results, target) for target in (*TARGETS, *moved))


def cost_means(results: Sequence[ClipResult]) -> dict[str, float]:
    """Return the mean over clips of each metric of COSTS that was measured."""
    means: dict[str, float] = {}
    for name in COSTS:
        values = np.array([result.cost.get(name, float("nan")) for result in results])
        finite = values[np.isfinite(values)]
        if len(finite):
            means[name] = float(finite.mean())
    return means


def head_means(results: Sequence[ClipResult]) -> dict[str, dict[str, float]]:
    """Return the mean over clips of the scores of head motion, by row and metric; empty if the method does not move the head."""
    scores = [result.head_motion.scores for result in results if result.head_motion is not None]
    if not scores:
        return {}
    return {row: {name: float(np.mean([of[row][name] for of in scores])) for name in figures} for row, figures in scores[0].items()}
