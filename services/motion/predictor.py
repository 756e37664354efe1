"""A motion predictor: its row in the table of methods, and the functions that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from services.common.face.landmarks import never_open
from services.common.methods import PredictorSpec
from services.motion.constraints import ConstraintConfig
from services.motion.grid import MotionGrid
from services.motion.models import MotionModels
from services.motion.personalization import StyleStep
from services.motion.style import FASTEST_STEP, WIDEST_OPENING, Style, encode_style, fastest_step, widest_opening
from services.motion.types import Footage, SpeechFeatures

Shape = Callable[[MotionModels], tuple[int, ...]]
"""Shape of an array of the style artefact. Takes the models, because sizes depend on the exported network."""


def encode_mouths(footage: Footage, models: MotionModels) -> Style:
    """Return the style of tracked mouths: the arrays that every style holds, the person's widest opening and fastest step.

    A person who is never seen with an open mouth gets the movement of the mean training speaker.

    Raises:
        NoUsableFootage: fewer than 25 usable frames.
    """
    style = encode_style(footage.mouth_landmarks, footage.usable, models.basis, models)
    mouths = footage.mouth_landmarks[footage.usable]
    if never_open(mouths):
        return models.mean_speaker(style)
    limits = {WIDEST_OPENING: widest_opening(mouths), FASTEST_STEP: fastest_step(footage.mouth_landmarks, footage.usable)}
    return style.adding(**limits)


def mean_speaker(style: Style, models: MotionModels) -> Style:
    """Return the person's own mouths with the style of the mean training speaker, see MotionModels.mean_speaker."""
    return models.mean_speaker(style)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """One motion predictor.

    Attributes:
        spec: the predictor's row, `PREDICTORS[NAME]`.
        version: returns the digest of the networks.
        open: returns the predictor of one person on the 25 frames/s grid. Arguments: the networks; the style of the person; closure
            of the lips on p, b, m and in silence, None: the default constraints. Raises InvalidRequest if the style lacks what the
            predictor needs.
        personalize: refines a style. Arguments: the style of the person, encoded for this predictor; features of the enrolment
            footage without lag, T frames; the enrolment footage, T frames; the networks. Yields progress, and the refined style in
            the last step. Arrays that other predictors added stay as they are. Raises NoUsableFootage if fewer than 50 frames are
            usable.
        style_arrays: arrays that this predictor adds to the style artefact: name -> shape.
        encode_style: returns the style of a person from tracked footage.
        mean_style: returns the style for the ablation without style.
    """

    spec: PredictorSpec
    version: Callable[[MotionModels], str]
    open: Callable[[MotionModels, Style, ConstraintConfig | None], MotionGrid]
    personalize: Callable[[Style, SpeechFeatures, Footage, MotionModels], Iterator[StyleStep]]
    style_arrays: Mapping[str, Shape] = field(default_factory=dict)
    encode_style: Callable[[Footage, MotionModels], Style] = encode_mouths
    mean_style: Callable[[Style, MotionModels], Style] = mean_speaker
