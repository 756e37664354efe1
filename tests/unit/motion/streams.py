"""Streams of motion as tests run them."""

from __future__ import annotations

from fractions import Fraction

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
