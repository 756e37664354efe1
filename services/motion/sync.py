"""Sync distance of a clip: the mean distance between the sync network's embeddings of sound and mouth (Song et al. 2023, Sec. IV).

Reports show the distance of dubs. The sync network hears posteriorgrams, and no predictor learns from the network, so the distance
does not favour a predictor that hears the states which the lag is measured with (docs/models/sync.md).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from services.common.array_types import Bool, Float32
from services.motion.basis import LandmarkBasis
from services.motion.features import sync_rows
from services.motion.lag import paired_at, standardised
from services.motion.types import MAX_LAG, SpeechFeatures


class SyncModel(Protocol):
    """Both encoders of the sync network, in ONNX Runtime or PyTorch."""

    def embed_audio(self, heard: Float32) -> Float32:
        """Return embeddings of sync rows: float32 [T, 4, 25] -> unit rows [T, E]."""
        ...

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Return embeddings of coefficients in units of the clip's spread: float32 [T, K] -> unit rows [T, E]."""
        ...


def embeddings(
    features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, model: SyncModel
) -> tuple[Float32, Float32]:
    """Return the embeddings of sound and of mouth, unit rows float32 [T, E] each.

    Args:
        features: of T frames.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T], with at least one usable frame.
        basis: landmark basis of the sync network.
    """
    return model.embed_audio(sync_rows(features)), model.embed_mouth(standardised(mouth_landmarks, usable, basis))


def similarities_at_lags(audio: Float32, mouth: Float32, usable: Bool) -> Float32:
    """Return the mean cosine similarity of sound at n + lag and mouth at n, for lags -15..15: float32 [31]."""
    scores = np.zeros(2 * MAX_LAG + 1, np.float32)
    for index, lag in enumerate(range(-MAX_LAG, MAX_LAG + 1)):
        of_sound, of_picture = paired_at(lag, len(mouth))
        keep = usable[of_picture]
        if keep.any():
            scores[index] = (audio[of_sound] * mouth[of_picture]).sum(axis=-1)[keep].mean()
    return scores


def sync_distance(
    features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, model: SyncModel
) -> float:
    """Return the mean Euclidean distance of the embeddings over the usable frames, 0 to 2, at the lag of least distance.

    Arguments: see `embeddings`.
    """
    audio, mouth = embeddings(features, mouth_landmarks, usable, basis, model)
    lag = int(similarities_at_lags(audio, mouth, usable).argmax()) - MAX_LAG
    of_sound, of_picture = paired_at(lag, len(mouth))
    return float(np.linalg.norm(audio[of_sound] - mouth[of_picture], axis=-1)[usable[of_picture]].mean())
