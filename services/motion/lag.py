"""The lag between sound and picture of a clip, from the sync network."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from services.common.array_types import Bool, Float32
from services.common.errors import NoUsableFootage
from services.common.face.landmarks import never_open
from services.motion.basis import LandmarkBasis
from services.motion.features import sync_rows
from services.motion.types import MAX_LAG, LagEstimate, SpeechFeatures

MIN_FRAMES = 2 * MAX_LAG
"""Fewest usable frames of a lag: at the largest lag, half of the frames still form pairs."""

MIN_SPOKEN = 12
"""Fewest frames with speech of a lag. Any other sound belongs to no mouth."""
_SPEECH = 0.5
"""Speech probability from which on a frame has speech."""


class SyncModel(Protocol):
    """Both encoders of the sync network, in ONNX Runtime or PyTorch."""

    def embed_audio(self, heard: Float32) -> Float32:
        """Return embeddings of sync rows: float32 [T, 4, 25] -> unit rows [T, E]."""
        ...

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Return embeddings of coefficients in units of the clip's spread: float32 [T, K] -> unit rows [T, E]."""
        ...


def standardised(mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis) -> Float32:
    """Return coefficients about the clip's mean in units of the clip's own spread, float32 [T, K]; 0 on unusable frames.

    The spread is at least a third of the typical spread, so that a face that does not move is not blown up.
    """
    coefficients = basis.project(mouth_landmarks - mouth_landmarks[usable].mean(axis=0))
    spread = np.maximum(coefficients[usable].std(axis=0), basis.typical_spread / 3.0)
    return np.where(usable[:, None], coefficients / spread, 0.0).astype(np.float32)


def scores_at_lags(audio: Float32, mouth: Float32, usable: Bool) -> Float32:
    """Return the mean cosine similarity of sound at n + lag and mouth at n, for lags -15..15: float32 [31]."""
    length = len(mouth)
    scores = np.zeros(2 * MAX_LAG + 1, np.float32)
    for index, lag in enumerate(range(-MAX_LAG, MAX_LAG + 1)):
        begin, end = max(0, -lag), min(length, length - lag)
        keep = usable[begin:end]
        if keep.any():
            scores[index] = (audio[begin + lag : end + lag] * mouth[begin:end]).sum(axis=-1)[keep].mean()
    return scores


def estimate_lag(
    features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, model: SyncModel
) -> LagEstimate:
    """Return the lag of a clip.

    Args:
        features: of T frames.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T].
        basis: landmark basis of the networks.
        model: the sync network.

    Raises:
        NoUsableFootage: fewer than 30 usable frames, a mouth that never opens, or speech on fewer than 12 frames.
    """
    if int(usable.sum()) < MIN_FRAMES:
        raise NoUsableFootage(
            f"a lag needs {MIN_FRAMES} usable frames (1.2 s), the footage has {int(usable.sum())}", subject="mouth_landmarks"
        )
    if never_open(mouth_landmarks[usable]):
        raise NoUsableFootage("a lag needs a mouth that opens, and the footage shows none", subject="mouth_landmarks")
    spoken = int((features.speech_probability >= _SPEECH).sum())
    if spoken < MIN_SPOKEN:
        raise NoUsableFootage(
            f"a lag needs {MIN_SPOKEN} frames with speech (half a second), the sound has {spoken}", subject="speech_probability"
        )
    audio = model.embed_audio(sync_rows(features))
    mouth = model.embed_mouth(standardised(mouth_landmarks, usable, basis))
    scores = scores_at_lags(audio, mouth, usable)
    best = int(scores.argmax())
    lag = best - MAX_LAG
    begin, end = max(0, -lag), min(len(mouth), len(mouth) - lag)
    # Mean distance of the unit vectors over the pairs of the best lag.
    apart = np.linalg.norm(audio[begin + lag : end + lag] - mouth[begin:end], axis=-1)[usable[begin:end]]
    return LagEstimate(lag, float(max(scores[best] - np.median(scores), 0.0)), scores, float(apart.mean()))
