"""The lag between sound and picture of a clip, by the sync network."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from services.common.errors import NoUsableFootage
from services.motion.basis import LandmarkBasis
from services.motion.features import sync_rows
from services.motion.types import MAX_LAG, Bool, Float32, LagEstimate, SpeechFeatures

MIN_FRAMES = 2 * MAX_LAG
"""Frames below which no lag can be told: each lag needs as many pairs again."""


class SyncModel(Protocol):
    """Both encoders of the sync network, however they are run."""

    def embed_audio(self, heard: Float32) -> Float32:
        """Sync rows float32 [T, 4, 25] -> unit rows [T, E]."""
        ...

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Coefficients float32 [T, K] in units of the clip's spread -> unit rows [T, E]."""
        ...


def standardised(mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis) -> Float32:
    """Coefficients about the clip's mean in units of the clip's own spread, float32 [T, K]; 0 on unusable frames.

    A floor of a third of the typical spread keeps a face that does not move from being blown up.
    """
    coefficients = basis.project(mouth_landmarks - mouth_landmarks[usable].mean(axis=0))
    spread = np.maximum(coefficients[usable].std(axis=0), basis.typical_spread / 3.0)
    return np.where(usable[:, None], coefficients / spread, 0.0).astype(np.float32)


def scores_at_lags(audio: Float32, mouth: Float32, usable: Bool) -> Float32:
    """Mean cosine similarity of sound at n + lag and mouth at n, lags -15..15: float32 [31]."""
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
    """Lag of a clip.

    Args:
        features: T frames.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames/s.
        usable: bool [T].
        basis: landmark basis of the networks.
        model: the sync network.

    Raises:
        NoUsableFootage: fewer than 30 usable frames.
    """
    if int(usable.sum()) < MIN_FRAMES:
        raise NoUsableFootage(
            f"a lag needs {MIN_FRAMES} usable frames (1.2 s), the footage has {int(usable.sum())}", subject="mouth_landmarks"
        )
    audio = model.embed_audio(sync_rows(features))
    mouth = model.embed_mouth(standardised(mouth_landmarks, usable, basis))
    scores = scores_at_lags(audio, mouth, usable)
    best = int(scores.argmax())
    # Distance of unit vectors from their mean cosine: sqrt(2 - 2 cos), averaged over the pairs of the best lag.
    lag = best - MAX_LAG
    begin, end = max(0, -lag), min(len(mouth), len(mouth) - lag)
    apart = np.linalg.norm(audio[begin + lag : end + lag] - mouth[begin:end], axis=-1)[usable[begin:end]]
    return LagEstimate(lag, float(max(scores[best] - np.median(scores), 0.0)), scores, float(apart.mean()))
