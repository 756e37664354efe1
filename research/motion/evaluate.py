"""Evaluate an exported predictor on held-out clips: `python -m research.motion.evaluate --predictor NAME --data SET`.

The evaluation runs the serving code on the clips of every split but `train`: the ONNX networks, the constraints and Personalize.
Only mouths are evaluated.

Clips are compared twice: with their lags taken out, and as they were filmed, which shows the error in time that a viewer sees. The
figures that end with `_as_filmed` are those at the true time. Styles are learned from footage without lag, as in an enrolment.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from research.motion.clips import TrainingClip, footage_of, synced_footage_of, with_lag_fraction
from research.motion.protocol import (
    SELECTED_ON,
    ClipFold,
    ClipScores,
    Encode,
    Groups,
    ServedPredictor,
    evaluate_parts,
    groups_of,
    mean_scores,
    styled_folds,
)
from research.training.command import command_line, data_parser
from research.training.trainset import TrainSet
from services.common.methods import PREDICTORS
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.lag import LAG_STATES
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.registry import predictor_named
from services.motion.style import Style
from services.motion.types import EXTRA_FEATURES

OFF = ConstraintConfig(
    bilabial_low=2.0,
    bilabial_high=3.0,
    closed_low=2.0,
    closed_high=3.0,
    silent_low=-2.0,
    silent_high=-1.0,
    voiced_low=-2.0,
    voiced_high=-1.0,
    presence_low=-2.0,
    presence_high=-1.0,
    quiet_pause=1_000_000,
)
"""Constraints that never act: the network alone."""

Ablation = Callable[[Style, MotionModels], Style]
"""Function that changes an encoded style."""
AS_FILMED: Final = ("opening_correlation", "lip_distance_ratio", "delay_ms")
"""Figures that a report also has at the true time."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to predict.

    Attributes:
        encode: measures the style of a fold.
        constraints: constraints on the mouths.
        control: whether to predict clips of further splits from wrong sounds too.
    """

    name: str
    encode: Encode
    constraints: ConstraintConfig = WHOLE
    control: bool = False


def encoded(predictor: Predictor, models: MotionModels, change: Ablation | None = None) -> Encode:
    """Return a function that encodes the style of a fold's enrolment part, and then changes the style if `change` is given."""

    def encode(clip: TrainingClip, fold: ClipFold) -> Style:
        style = predictor.encode_style(footage_of(clip, fold.enrolment), models)
        return style if change is None else change(style, models)

    return encode


def personalized(predictor: Predictor, models: MotionModels) -> Encode:
    """Return a function that personalises on the enrolment part of a fold. Clips that enrol on themselves are only encoded."""
    encode = encoded(predictor, models)

    def refine(clip: TrainingClip, fold: ClipFold) -> Style:
        style, part = encode(clip, fold), fold.enrolment
        if part == fold.test:
            return style
        footage = synced_footage_of(clip, part)
        *_, last = predictor.personalize(style, clip.features[part], footage, models)
        assert last.style is not None
        return last.style

    return refine


def variants(predictor: Predictor, models: MotionModels) -> list[Variant]:
    """Return the variants that every predictor is evaluated in."""
    plain = encoded(predictor, models)
    return [
        Variant("network", plain, OFF),
        Variant("full", plain, control=True),
        Variant("personalized", personalized(predictor, models), control=True),
        Variant("no_style", encoded(predictor, models, predictor.mean_style)),
    ]


def evaluate(
    predictor: Predictor,
    models: MotionModels,
    groups: Groups,
    filmed: Groups,
    compared: Sequence[Variant],
) -> dict[str, object]:
    """Evaluate variants of a predictor, and print one line per variant and group of clips.

    Args:
        groups: held-out clips by group, without their lags.
        filmed: the same clips with their lags (protocol.groups_of).
        compared: the variants.

    Returns:
        The report: `variant/group` -> scores, `variant/milliseconds_a_frame`, method and version.
    """
    report: dict[str, object] = {"method": predictor.spec.name, "version": predictor.version(models)}
    for variant in compared:
        served = ServedPredictor(predictor, models, variant.constraints)
        for group, members in groups.items():
            results, at_true_time = [], []
            for clip, original in zip(members, filmed[group], strict=True):
                aligned = with_lag_fraction(clip, models.lag)
                parts = styled_folds(aligned, variant.encode)
                control = variant.control and group not in SELECTED_ON
                results.append(evaluate_parts(aligned, parts, served, control=control))
                at_true_time.append(evaluate_parts(original, parts, served, control=False))
            scores, filmed_scores = _means(results), _means(at_true_time)
            scores |= {f"{name}_as_filmed": filmed_scores[name] for name in AS_FILMED}
            scores["closure"] = scores["closure_hits"] / max(1, scores["closure_events"])
            scores["wrong_audio"] = fmean(result.wrong_audio for result in results)
            scores["clips"] = {result.name: asdict(result.scores) for result in results}
            report[f"{variant.name}/{group}"] = scores
            line = {name: round(value, 3) for name, value in scores.items() if isinstance(value, float)}
            print(f"{variant.name:12s} {group:6s}", json.dumps(line), flush=True)
        report[f"{variant.name}/milliseconds_a_frame"] = round(1e3 * served.seconds / max(1, served.frames), 3)
    return report


def _means(results: Sequence[ClipScores]) -> dict[str, Any]:
    """Return MotionScores, means over clips, with `lip_distance_ratio` and the median `delay_ms`, NaN if no clip has one."""
    scores = asdict(mean_scores([result.scores for result in results], by_frames=False))
    delays = [result.delay_ms for result in results if math.isfinite(result.delay_ms)]
    return scores | {
        "lip_distance_ratio": scores["lip_distance"] / scores["mean_mouth_distance"],
        "delay_ms": float(np.median(delays)) if delays else math.nan,
    }


def extra_features(predictor: Predictor) -> list[str]:
    """Return the further tensors of the sound that a predictor takes, and the tensor that lags are measured with."""
    return sorted({LAG_STATES, *(name for name in predictor.spec.tensors if name in EXTRA_FEATURES)})


def both_groups(data: TrainSet, predictor: Predictor) -> tuple[Groups, Groups]:
    """Return the held-out clips of a predictor's evaluation without their lags, and as they were filmed."""
    extra = extra_features(predictor)
    return groups_of(data, extra), groups_of(data, extra, filmed=True)


def evaluation_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every evaluation."""
    parser = data_parser(description)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help=f"Folder of exported models. Default: {WEIGHTS}.")
    parser.add_argument("--json", type=Path, help="File for the report. Default: the report is only printed.")
    return parser


@command_line
def run(predictor: Predictor, arguments: argparse.Namespace, ablations: Sequence[tuple[str, Ablation]] = ()) -> int:
    """Evaluate a predictor with the arguments of an evaluation_parser, and return the exit code.

    Args:
        arguments: parsed arguments.
        ablations: names and style changes of further variants.
    """
    models = MotionModels(arguments.weights)
    groups, filmed = both_groups(TrainSet(arguments.data), predictor)
    further = [Variant(name, encoded(predictor, models, change)) for name, change in ablations]
    report = evaluate(predictor, models, groups, filmed, [*variants(predictor, models), *further])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def main() -> int:
    """Run the command line, and return the exit code."""
    parser = evaluation_parser(__doc__)
    parser.add_argument("--predictor", choices=tuple(PREDICTORS), required=True, help="Predictor to evaluate.")
    arguments = parser.parse_args()
    return run(predictor_named(arguments.predictor), arguments)


if __name__ == "__main__":
    sys.exit(main())
