"""The lag between sound and picture: of one clip by the motion stage, and of short clips by all clips of the speaker."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from gateway.stages.interface import Stages
from gateway.trainset.listen import ClipFeatures
from services.common.array_types import Bool, Float32
from services.common.errors import NoUsableFootage
from services.training.trainset.manifest import ClipRow

LEAST_CONFIDENCE: Final = 0.25
"""Least confidence of a clip whose lag counts (docs/models/lag.md)."""
LONG_FRAMES: Final = 200
"""Usable frames from which a confident clip's own lag counts: eight seconds."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Answer of EstimateLag for one clip, frames of 40 ms; confidence -1: not measured."""

    frames: int = 0
    confidence: float = -1.0


async def measure_lag(stages: Stages, mouth_landmarks: Float32, usable: Bool, heard: ClipFeatures) -> Lag:
    """Return the lag of a clip. A clip of too few usable frames, of a mouth that never opens, or of hardly any speech has none.

    Args:
        stages: the stages.
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        heard: features of the same T frames.

    Raises:
        DubstageError: from the motion stage.
    """
    arrays = {"mel": heard.mel, "posteriorgram": heard.posteriorgram, "speech_states": heard.speech_states}
    request = motion_client.estimate_lag.request(
        features=audio_client.feature_block(arrays, heard.speech_probability), mouth_landmarks=mouth_landmarks, usable=usable
    )
    try:
        reply = await stages.unary(rpcs.motion.ESTIMATE_LAG, request)
    except NoUsableFootage:
        return Lag()
    return Lag(reply.lag_frames, round(reply.confidence, 4))


def lags_by_clip(rows: Iterable[ClipRow]) -> dict[str, int]:
    """Return the lag to take out of each clip, frames, by the name of the clip.

    One speaker's clips mostly come from one recording chain, and the lag of three seconds alone is uncertain: a short clip has the
    median over the speaker's confident clips. A long confident clip has a lag of its own, because the chain may have been another.
    Clips of speakers without a confident clip are left out.

    Args:
        rows: rows with the lag and the confidence that were measured on each clip alone.
    """
    rows = tuple(rows)
    heard: dict[str, list[int]] = {}
    for row in rows:
        if row.lag_confidence >= LEAST_CONFIDENCE:
            heard.setdefault(row.speaker, []).append(row.lag_frames)
    common = {speaker: statistics.median_low(lags) for speaker, lags in heard.items()}
    return {row.name: row.lag_frames if _stands_alone(row) else common[row.speaker] for row in rows if row.speaker in common}


def _stands_alone(row: ClipRow) -> bool:
    return row.lag_confidence >= LEAST_CONFIDENCE and row.usable_frames >= LONG_FRAMES
