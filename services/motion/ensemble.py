"""A predictor that answers the mean of several predictors.

The members hear the speech in different ways, so their errors differ, and the mean has smaller errors than each member
(docs/models/motion.md). The style of a person holds the arrays of every member, so each member can be used alone with the same
style. A style that a member refuses was encoded for another method, such as the style of a person who was enrolled before there was
an ensemble. The first member answers this style alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.motion.constraints import ConstraintConfig
from services.motion.grid import MotionGrid
from services.motion.models import MotionModels
from services.motion.personalization import Step
from services.motion.predictor import Predictor
from services.motion.style import Style
from services.motion.types import NUM_POINTS, Footage, Motion, SpeechFeatures

_STEPS: Final = 100
"""Steps of the progress of a personalisation for each member."""


class EnsembleGrid:
    """Mean of several predictors of one person on the 25 frames/s grid. A frame is answered once every member has answered."""

    def __init__(self, members: Sequence[MotionGrid]) -> None:
        """Start at the first frame, with members that have heard nothing."""
        self._members = members
        self._next = 0
        self._mouths = [np.zeros((0, NUM_POINTS, 3), np.float32) for _ in members]
        self._speaking = [np.zeros(0, np.float32) for _ in members]

    @property
    def num_features(self) -> int:
        """Number of frames of features so far."""
        return self._members[0].num_features

    def push(self, features: SpeechFeatures) -> Motion:
        """Return the mouths of the grid frames that these features complete, maybe none. Errors: see MotionGrid.push."""
        return self._mean([member.push(features) for member in self._members])

    def push_silence(self, num_frames: int) -> Motion:
        """Return the mouths of the grid frames that silence after the end of the speech completes."""
        return self._mean([member.push_silence(num_frames) for member in self._members])

    def expression(self, mouth_landmarks: Float32) -> None:
        """Return None: the members share landmarks, and no coefficients."""

    def _mean(self, answers: list[Motion]) -> Motion:
        mouths = [np.concatenate([kept, each.mouth_landmarks]) for kept, each in zip(self._mouths, answers, strict=True)]
        speaking = [np.concatenate([kept, each.speech_probability]) for kept, each in zip(self._speaking, answers, strict=True)]
        ready, first = min(map(len, mouths)), self._next
        self._mouths, self._speaking = [each[ready:] for each in mouths], [each[ready:] for each in speaking]
        self._next += ready
        return Motion(first, np.mean([each[:ready] for each in mouths], axis=0, dtype=np.float32), speaking[0][:ready])


def ensemble_of(name: str, members: Sequence[Predictor]) -> Predictor:
    """Return the predictor that answers the mean of the members' mouths.

    Args:
        name: the ensemble's name.
        members: predictors that do not move the head, at least two. The first one takes every style.
    """

    def version(models: MotionModels) -> str:
        return hashlib.sha256(" ".join(member.version(models) for member in members).encode()).hexdigest()[:12]

    def open_grid(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> MotionGrid:
        try:
            return EnsembleGrid([member.open(models, style, constraints) for member in members])
        except InvalidRequest:
            return members[0].open(models, style, constraints)

    def encode_style(footage: Footage, models: MotionModels) -> Style:
        return _joined([member.encode_style(footage, models) for member in members])

    def mean_style(style: Style, models: MotionModels) -> Style:
        return _joined([member.mean_style(style, models) for member in members])

    def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
        # The squared error of a mean is at most the mean of the members' squared errors, so this is the loss that is told.
        count = _STEPS * len(members)
        losses: list[float] = []
        for member in members:
            done = _STEPS * len(losses)
            for step in member.personalize(style, features, footage, models):
                if step.style is None:
                    yield Step(done + _STEPS * step.index // step.count, count, 1.0, None)
                else:
                    style = step.style
                    losses.append(step.loss)
        yield Step(count, count, float(np.mean(losses)), style)

    return Predictor(
        name=name,
        frames_ahead=max(member.frames_ahead for member in members),
        version=version,
        open=open_grid,
        personalize=personalize,
        features=tuple(dict.fromkeys(feature for member in members for feature in member.features)),
        style_arrays={array: shape for member in members for array, shape in member.style_arrays.items()},
        encode_style=encode_style,
        mean_style=mean_style,
    )


def _joined(styles: list[Style]) -> Style:
    """Return the first style with the arrays that the members added to any of the styles."""
    return replace(styles[0], added={name: array for style in styles for name, array in style.added.items()})
