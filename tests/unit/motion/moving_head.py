"""A made-up person whose head moves, and streams of their motion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.wire.phones import PHONES
from services.common.wire.timeline import Timeline
from services.motion.models import MotionModels
from services.motion.predictors.portrait.predictor import PortraitPredictor
from services.motion.speech_states import STATES
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures
from tests.unit.motion.streams import PAL, run
from tests.unit.motion.synthesised import mouths, random_features, speech, with_states

FRAMES = 100


def talking(num_frames: int = FRAMES) -> Float32:
    return mouths((5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7)).astype(np.float32))


def joined(parts: list[Motion]) -> Motion:
    def column(values: Iterator[npt.NDArray[np.generic] | None]) -> npt.NDArray[np.generic]:
        return np.concatenate([value for value in values if value is not None])

    return Motion(
        parts[0].first_frame,
        np.concatenate([part.mouth_landmarks for part in parts]),
        np.concatenate([part.speech_probability for part in parts]),
        column(part.expression for part in parts),  # type: ignore[arg-type]
        column(part.poses for part in parts),  # type: ignore[arg-type]
        column(part.blink for part in parts),  # type: ignore[arg-type]
    )


def predict(models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline = PAL, cut: int = 1000) -> Motion:
    return joined(run(opened(models, style, timeline), features, cut))


def talk(num_frames: int, seed: int = 0) -> SpeechFeatures:
    """Somebody who talks without a pause, a phone in 80 ms."""
    rng = np.random.default_rng(seed)
    return with_states(speech([PHONES[index] for index in rng.integers(1, len(PHONES), num_frames // 2)], 2), STATES, seed=seed)


def heard(num_frames: int, seed: int = 0) -> SpeechFeatures:
    """Features with states that change quickly: any mix-up of frames shows."""
    return with_states(random_features(num_frames, seed), STATES, seed=seed)


def opened(models: MotionModels, style: Style, timeline: Timeline) -> MotionStream:
    return MotionStream(PortraitPredictor(models, style), timeline)


def poses_of(motion: Motion) -> Float64:
    assert motion.poses is not None
    return motion.poses
