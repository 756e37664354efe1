"""Evaluates the exported motion stage on held-out clips: `python -m services.motion.train.evaluate --trainset DIR`.

What is evaluated is what serves: the ONNX networks, the constraints and Personalize, on `val` and `dev` clips.
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

from services.common.timeline import Timeline
from services.motion.adapt.personalize import personalize
from services.motion.constraints import ConstraintConfig
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predict import MotionStream, mean_speaker
from services.motion.style import Style
from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.protocol import Fold, evaluate_clip, mean_scores
from services.motion.types import Float32, SpeechFeatures

OFF = ConstraintConfig(
    bilabial_low=2.0, bilabial_high=3.0, speech_low=-2.0, speech_high=-1.0, presence_low=-2.0, presence_high=-1.0
)
"""Constraints that never act: the network alone."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to predict: `restyle` changes the style of a fold."""

    name: str
    constraints: ConstraintConfig
    restyle: Callable[[Style, TrainingClip, Fold], Style] | None
    control: bool


class ServedPredictor:
    """The serving code as protocol.Predict."""

    def __init__(self, models: MotionModels, constraints: ConstraintConfig) -> None:
        self._models, self._constraints = models, constraints
        self.frames, self.seconds = 0, 0.0

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Mouths float32 [T, 59, 3]."""
        begin = time.perf_counter()
        stream = MotionStream(self._models, style, Timeline(rate=Fraction(25)), len(features), self._constraints)
        parts = [stream.push(0, features)]
        while (part := stream.drain()) is not None:
            parts.append(part)
        self.frames += len(features)
        self.seconds += time.perf_counter() - begin
        return np.concatenate([part.mouth_landmarks for part in parts])


def personalized(models: MotionModels) -> Callable[[Style, TrainingClip, Fold], Style]:
    """Personalisation on the enrolment part of a fold; clips that enrol on themselves stay as they are."""

    def refine(style: Style, clip: TrainingClip, fold: Fold) -> Style:
        if fold.enrolment == fold.test:
            return style
        part = fold.enrolment
        steps = list(personalize(style, clip.features[part], clip.mouth_landmarks[part], clip.usable[part], models))
        refined = steps[-1].style
        assert refined is not None
        return refined

    return refine


def variants(models: MotionModels) -> tuple[Variant, ...]:
    """What is compared."""
    plain = ConstraintConfig()
    return (
        Variant("network", OFF, None, control=False),
        Variant("full", plain, None, control=True),
        Variant("personalized", plain, personalized(models), control=True),
        Variant("no_style", plain, lambda style, _clip, _fold: mean_speaker(style, models), control=False),
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
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    models = MotionModels(arguments.weights)
    clips = load_clips(arguments.trainset, uses=frozenset({"val", "dev"}), lags=arguments.lags)
    report: dict[str, object] = {"version": models.version}
    for variant in variants(models):
        predictor = ServedPredictor(models, variant.constraints)
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
