"""Evaluate the exported predictor `hetero`: `python -m research.methods.hetero.evaluate --data SET`.

The shared command (research.motion.evaluate) knows mouths only, so its person has the pose landmarks of the mean face. This
command gives each clip its own pose landmarks, as the gateway does, and adds the ablations of the person: without the reference
encoder (the mean speaker's vector), and without the pose encoder (the mean face).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np

from research.motion.clips import TrainingClip, footage_of
from research.motion.evaluate import Variant, both_groups, evaluate, evaluation_parser
from research.motion.protocol import ClipFold, Encode
from research.training.command import command_line
from research.training.trainset import ClipRow, TrainSet
from services.common.array_types import Float32
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.landmarks import pose_landmarks
from services.motion.models import MotionModels
from services.motion.predictors.hetero.predictor import POSE, PREDICTOR, REFERENCE, HeteroModel
from services.motion.style import Style
from services.motion.types import Footage


def upper_landmarks(data: TrainSet, row: ClipRow) -> Float32:
    """Return the pose landmarks of the frames of a clip, without its lag, in head space: float32 [T, 99, 3].

    Raises:
        InvalidRequestError: the clip's track is missing or damaged.
    """
    track = data.arrays(row, "track", ("landmarks", "rotation", "translation", "scale"))
    frames = [
        to_head_space(pose_landmarks(points), HeadPose(float(scale), rotation, translation))
        for points, rotation, translation, scale in zip(*track.values(), strict=True)
    ]
    return np.stack(frames)[max(0, -row.lag_frames) :]


class _PoseStyles:
    """Styles of clips with their own pose landmarks."""

    def __init__(self, data: TrainSet, models: MotionModels) -> None:
        self._data, self._models = data, models
        self._rows = {row.name: row for row in data.rows}

    def footage(self, clip: TrainingClip, fold: ClipFold) -> Footage:
        """Return the enrolment part of a fold with pose landmarks."""
        upper = upper_landmarks(self._data, self._rows[clip.name])[: len(clip)]
        return replace(footage_of(clip, fold.enrolment), pose_landmarks=upper[fold.enrolment])

    def encode(self, clip: TrainingClip, fold: ClipFold) -> Style:
        """Return the style of a fold's enrolment part."""
        return PREDICTOR.encode_style(self.footage(clip, fold), self._models)

    def refine(self, clip: TrainingClip, fold: ClipFold) -> Style:
        """Return the personalised style. Clips that enrol on themselves are only encoded."""
        style, part = self.encode(clip, fold), fold.enrolment
        if part == fold.test:
            return style
        *_, last = PREDICTOR.personalize(style, clip.features[part], self.footage(clip, fold), self._models)
        assert last.style is not None
        return last.style

    def without(self, name: str, vector: Float32) -> Encode:
        """Return a function that encodes a style, and replaces one of the person's vectors."""
        return lambda clip, fold: self.encode(clip, fold).adding(**{name: vector})


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    arguments = evaluation_parser(__doc__).parse_args()
    models, data = MotionModels(arguments.weights), TrainSet(arguments.data)
    groups, filmed = both_groups(data, PREDICTOR)
    model = HeteroModel.of(models)
    person = _PoseStyles(data, models)
    compared = [
        Variant("full", person.encode),
        Variant("personalized", person.refine),
        Variant("no_reference", person.without(REFERENCE, model.mean_reference)),
        Variant("no_pose", person.without(POSE, model.mean_pose)),
    ]
    report = evaluate(PREDICTOR, models, groups, filmed, compared)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
