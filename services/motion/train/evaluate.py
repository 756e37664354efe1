"""Evaluates the exported motion stage on held-out clips: `python -m services.motion.train.evaluate --trainset DIR`.

What is evaluated is what serves: the ONNX networks, the constraints and Personalize, on `val` and `dev` clips; `--method everybody`
for the Audio-to-Expression network, whose features must hold `identity_removed`; `--method headpose` for the mouth of that
predictor, whose training set must hold head poses (evaluate_head_motion evaluates the head).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import numpy as np

from services.common.errors import InvalidRequest
from services.common.timeline import Timeline
from services.motion.adapt.personalize import personalize
from services.motion.adapt.personalize_expression import personalize_expression
from services.motion.adapt.personalize_head_motion import personalize_head_motion
from services.motion.constraints import ConstraintConfig
from services.motion.grid import Grid
from services.motion.head_style import head_style_arrays, measure_head
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predict import MotionStream, mean_speaker
from services.motion.predict_expression import ExpressionGrid
from services.motion.predict_head_motion import HeadMotionGrid
from services.motion.style import Style
from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.protocol import Fold, evaluate_clip, mean_scores
from services.motion.types import METHODS, Float32, SpeechFeatures

OFF = ConstraintConfig(
    bilabial_low=2.0, bilabial_high=3.0, speech_low=-2.0, speech_high=-1.0, presence_low=-2.0, presence_high=-1.0
)
"""Constraints that never act: the network alone."""


Restyle = Callable[[Style, TrainingClip, Fold], Style]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to predict: `restyle` changes the style of a fold."""

    name: str
    constraints: ConstraintConfig
    restyle: Restyle | None
    control: bool


class ServedPredictor:
    """The serving code as protocol.Predict."""

    def __init__(self, models: MotionModels, constraints: ConstraintConfig, method: str = "ugc") -> None:
        self._models, self._constraints, self._method = models, constraints, method
        self.frames, self.seconds = 0, 0.0

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Mouths float32 [T, 59, 3]."""
        begin = time.perf_counter()
        grid: Grid | None = None
        if self._method == "everybody":
            grid = ExpressionGrid(self._models, style, self._constraints)
        elif self._method == "headpose":
            grid = HeadMotionGrid(self._models, style, self._constraints)
        stream = MotionStream(self._models, style, Timeline(rate=Fraction(25)), len(features), self._constraints, grid=grid)
        parts = [stream.push(0, features)]
        while (part := stream.drain()) is not None:
            parts.append(part)
        self.frames += len(features)
        self.seconds += time.perf_counter() - begin
        return np.concatenate([part.mouth_landmarks for part in parts])


def with_head(models: MotionModels) -> Restyle:
    """The style with the head's movement in the enrolment part of a fold, which `headpose` needs."""

    def add(style: Style, clip: TrainingClip, fold: Fold) -> Style:
        if clip.poses is None:
            raise InvalidRequest(f"{clip.name}: the training set holds no head poses", field="trainset")
        part = fold.enrolment
        head = measure_head(clip.poses[part], clip.usable[part], models.head_motion.general)
        return replace(style, **head_style_arrays(head))

    return add


def personalized(models: MotionModels, method: str = "ugc") -> Restyle:
    """Personalisation on the enrolment part of a fold; clips that enrol on themselves stay as they are."""

    def refine(style: Style, clip: TrainingClip, fold: Fold) -> Style:
        style = with_head(models)(style, clip, fold) if method == "headpose" else style
        if fold.enrolment == fold.test:
            return style
        part = fold.enrolment
        heard, mouths, usable = clip.features[part], clip.mouth_landmarks[part], clip.usable[part]
        if method == "headpose":
            assert clip.poses is not None
            steps = list(personalize_head_motion(style, heard, mouths, usable, clip.poses[part], models))
        else:
            fit = personalize_expression if method == "everybody" else personalize
            steps = list(fit(style, heard, mouths, usable, models))
        refined = steps[-1].style
        assert refined is not None
        return refined

    return refine


def variants(models: MotionModels, method: str = "ugc") -> tuple[Variant, ...]:
    """What is compared."""
    plain = ConstraintConfig()
    as_it_is: Restyle | None = with_head(models) if method == "headpose" else None

    def without_style(style: Style, clip: TrainingClip, fold: Fold) -> Style:
        plain_style = mean_speaker(style, models)
        return plain_style if as_it_is is None else as_it_is(plain_style, clip, fold)

    shared = (
        Variant("network", OFF, as_it_is, control=False),
        Variant("full", plain, as_it_is, control=True),
        Variant("personalized", plain, personalized(models, method), control=True),
        Variant("no_style", plain, without_style, control=False),
    )
    if method != "ugc":
        return shared
    return (
        *shared,
        Variant("no_adain", plain, lambda style, _clip, _fold: replace(style, modulation=models.mean_modulation), control=False),
    )


def groups(clips: Iterable[TrainingClip], trained: set[str]) -> dict[str, list[TrainingClip]]:
    """Clips by kind: known speakers, new speakers, dev footage."""
    found: dict[str, list[TrainingClip]] = {"known": [], "new": [], "dev": []}
    for clip in clips:
        found["dev" if clip.use == "dev" else "known" if clip.speaker in trained else "new"].append(clip)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainset", type=Path, required=True, help="training set: a folder with clips/ and features/")
    parser.add_argument("--lags", type=Path, help="JSON file of lags that the sync network found")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of exported models")
    parser.add_argument("--trained", nargs="*", default=["grid-s1", "grid-s4"], help="speakers that were trained on")
    parser.add_argument("--method", choices=METHODS, default="ugc", help="predictor to evaluate")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    models = MotionModels(arguments.weights)
    clips = load_clips(arguments.trainset, uses=frozenset({"val", "dev"}), lags=arguments.lags)
    method = arguments.method
    report: dict[str, object] = {"method": method, "version": models.version}
    if method == "everybody":
        report["version"] = models.expression.version
    if method == "headpose":
        report["version"] = models.head_motion.version
    for variant in variants(models, method):
        predictor = ServedPredictor(models, variant.constraints, method)
        for group, members in groups(clips, set(arguments.trained)).items():
            results = [
                evaluate_clip(clip, models.basis, models, predictor, variant.restyle, control=variant.control and group == "dev")
                for clip in members
            ]
            scores = asdict(mean_scores([result.scores for result in results], by_frames=False))
            scores["lip_distance_ratio"] = scores["lip_distance"] / scores["mean_mouth_distance"]
            scores["closure"] = scores["closure_hits"] / max(1, scores["closure_events"])
            scores["wrong_audio"] = fmean(result.wrong_audio for result in results)
            scores["clips"] = {result.name: asdict(result.scores) for result in results}
            report[f"{variant.name}/{group}"] = scores
            line = {name: round(value, 3) for name, value in scores.items() if isinstance(value, float)}
            print(f"{variant.name:12s} {group:6s}", json.dumps(line), flush=True)
        report[f"{variant.name}/milliseconds_a_frame"] = round(1e3 * predictor.seconds / predictor.frames, 3)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
