"""A training clip as the sampler of batches draws from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Bool, Float32
from services.common.face.landmarks import mouth_opening
from services.motion.expression import expression_spread
from services.motion.features import bilabial_probability, content_before
from services.motion.predictors.everyone.train.filter import alone
from services.motion.speech_states import Heard, silent_states, states_of
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Fitted


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """One clip of T frames between M frames of silence on both sides. Rest mouth and spread are the clip's own, as in serving.

    Attributes:
        frames: T.
        content: float32 [M + T + M, 4, 44], content rows.
        states: float32 [M + T + M, 192], states of the speech encoder. Silence if the network does not hear them.
        offsets: float32 [M + T + M, 59, 3], offsets from the rest mouth, crop pixels.
        movement: float32 [59, 3], standard deviation of the offsets.
        valid: bool [M + T + M], whether the frame shows the mouth.
        closed: bool [M + T + M], whether a bilabial sounds and the true lips are shut.
        rest: float32 [59, 3], the rest mouth.
        spread: float32 [E], size of each expression coefficient.
        closed_opening: opening of the shut mouth.
        alone: float32 [M + T + M, E], coefficients that hold in the clip's narrow corpus alone.
    """

    frames: int
    content: Float32
    states: Float32
    offsets: Float32
    movement: Float32
    valid: Bool
    closed: Bool
    rest: Float32
    spread: Float32
    closed_opening: float
    alone: Float32


def prepare(clip: TrainingClip, space: ExpressionSpace, fitted: Fitted, heard: Heard, margin: int) -> PreparedClip:
    """Prepare a clip.

    Args:
        clip: the clip.
        space: bases of mouths and of expression.
        fitted: filters, see filter.fit_filter.
        heard: input of the network.
        margin: M, frames of silence on both sides.
    """
    mouth = measure_mouth(clip.mouth_landmarks[clip.usable], space.mouth)
    opening = mouth_opening(clip.mouth_landmarks)
    low, high = np.percentile(opening[clip.usable], [8, 90])
    closed = (bilabial_probability(clip.features) > 0.5) & clip.usable & (opening < low + 0.2 * (high - low))
    edge = content_before(margin)
    states = silent_states(len(clip)) if heard == "paper" else states_of(clip.features)
    offsets = clip.mouth_landmarks - mouth.rest_mouth
    return PreparedClip(
        frames=len(clip),
        content=np.concatenate([edge, clip.content, edge]),
        states=np.pad(states, ((margin, margin), (0, 0))),
        offsets=np.pad(offsets, ((margin, margin), (0, 0), (0, 0))).astype(np.float32),
        movement=offsets.std(axis=0).astype(np.float32),
        valid=np.pad(clip.usable, margin),
        closed=np.pad(closed, margin),
        rest=mouth.rest_mouth,
        spread=expression_spread(mouth.spread, space.mouth, space.expression),
        closed_opening=float(low),
        alone=np.pad(alone(clip, fitted, heard), ((margin, margin), (0, 0))),
    )
