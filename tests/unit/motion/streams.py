"""Streams of motion as tests run them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from services.common.array_types import Float32
from services.common.wire.timeline import Timeline
from services.motion.stream import MotionStream
from services.motion.types import Motion, SpeechFeatures

PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))


def run(stream: MotionStream, features: SpeechFeatures, cut: int = 1000) -> list[Motion]:
    """Return the answers of a stream that gets its features in pieces of `cut` frames."""
    parts = [stream.push(first, features[first : first + cut]) for first in range(0, len(features), cut)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


def mouths_of(stream: MotionStream, features: SpeechFeatures, cut: int = 1000) -> Float32:
    """Return the mouths of a whole stream, float32 [T, 59, 3]."""
    return np.concatenate([part.mouth_landmarks for part in run(stream, features, cut)])


def faces_of(stream: MotionStream, features: SpeechFeatures, cut: int = 1000) -> tuple[Float32, Float32]:
    """Return the mouths and the expression of a whole stream."""
    parts = run(stream, features, cut)
    expression = [part.expression for part in parts if part.expression is not None]
    return np.concatenate([part.mouth_landmarks for part in parts]), np.concatenate(expression)
