"""Lag of the footage's sound, and whether the voice is that of the person. The lag of a foreign voice is not applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from gateway.methods import LAG_FEATURES
from gateway.pipeline.motion_clip import MotionClip
from gateway.pipeline.speech import feature_block
from gateway.stages.interface import Stages
from services.common.array_types import Array
from services.common.errors import NoUsableFootage

_LEAST_CONFIDENCE: Final = 0.25
"""Least confidence of a lag that is applied."""
_LEAST_STRENGTH: Final = 3.0
"""Least strength of a lag that is applied. docs/models/lag.md has the shares of own and of foreign voices that reach it."""


@dataclass(frozen=True, slots=True)
class SoundLag:
    """Lag of the footage's sound against the mouth of one face.

    Attributes:
        frames: frames of 40 ms by which the sound comes after the picture; None: the lag is unknown, or must not be applied.
        confidence: EstimateLagResponse.confidence; 0: nothing was measured.
        distance: EstimateLagResponse.distance.
        num_frames: usable frames that the lag was measured on.
        at_end: whether no larger lag was searched.
        doubt: why the voice does not count as the person's, so that the measured lag is not applied; empty: no doubt.
    """

    frames: int | None = None
    confidence: float = 0.0
    distance: float = 0.0
    num_frames: int = 0
    at_end: bool = False
    doubt: str = ""

    @property
    def strength(self) -> float:
        """Confidence times the root of the number of frames. The mean strength of foreign voices is the same for all lengths."""
        return self.confidence * math.sqrt(self.num_frames)


async def measured_lag(stages: Stages, clip: MotionClip, features: Array) -> SoundLag:
    """Return the lag of the footage's sound, with any confidence.

    The lag is unknown if the clip is too short, the mouth never opens, or hardly anybody is heard.

    Args:
        stages: the stages.
        clip: motion of the person.
        features: FEATURE_RECORDs of the footage's sound, of the same frames of the motion grid.

    Raises:
        DubstageError: from the motion stage.
    """
    count = min(len(clip.mouth), len(features))
    usable = clip.usable[:count]
    request = motion_client.estimate_lag.request(
        features=feature_block(features[:count], 0, LAG_FEATURES), mouth_landmarks=clip.mouth[:count], usable=usable
    )
    try:
        found = await stages.unary(rpcs.motion.ESTIMATE_LAG, request)
    except NoUsableFootage:
        return SoundLag()
    at_end = abs(found.lag_frames) >= found.scores.shape[0] // 2
    return SoundLag(found.lag_frames, found.confidence, found.distance, int(usable.sum()), at_end)


def believed(lag: SoundLag, others: Mapping[int, SoundLag]) -> SoundLag:
    """Return a lag that may be applied, or the lag without its number and with the doubt.

    Args:
        lag: measured lag of the person who is learned.
        others: measured lags of other faces that are in the picture at the same time, by face id.
    """
    if lag.frames is None:
        return lag
    least = max(_LEAST_CONFIDENCE, _LEAST_STRENGTH / math.sqrt(lag.num_frames))
    rival = max(others, key=lambda face: others[face].strength, default=None)
    if rival is not None and others[rival].strength > lag.strength:
        why = f"the mouth of face {rival} fits the sound better"
    elif lag.confidence < least:
        why = f"the confidence is {lag.confidence:.2f}, and {lag.num_frames} frames need {least:.2f}"
    elif lag.at_end:
        why = "larger lags were not searched"
    else:
        return lag
    return replace(lag, frames=None, doubt=f"{why}; the lag that fits best, {lag.frames:+d} frames of 40 ms, is not applied")
