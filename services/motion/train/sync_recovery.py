"""The check of the sync network: lags that were put into clips are found again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from services.common.array_types import Bool, Float32
from services.motion.basis import LandmarkBasis
from services.motion.networks.sync import SyncNetwork
from services.motion.sync import embeddings, similarities_at_lags
from services.motion.train.clips import Clips
from services.motion.types import MAX_LAG, SpeechFeatures


class TorchSync:
    """The network in PyTorch as a sync.SyncModel."""

    def __init__(self, network: SyncNetwork) -> None:
        self._network = network
        self._device = network.log_scale.device

    @torch.no_grad()
    def embed_audio(self, heard: Float32) -> Float32:
        """Embed, see sync.SyncModel."""
        embedded: Float32 = self._network.audio(torch.from_numpy(heard[None]).to(self._device))[0].cpu().numpy()
        return embedded

    @torch.no_grad()
    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Embed, see sync.SyncModel."""
        embedded: Float32 = self._network.mouth(torch.from_numpy(coefficients[None]).to(self._device))[0].cpu().numpy()
        return embedded


@dataclass(frozen=True, slots=True)
class RecoveryRate:
    """Share of inserted shifts that are found within one frame, and the mean confidence of right and of foreign sound."""

    within_one: float
    confidence_own: float
    confidence_foreign: float


def recovery(clips: Clips, basis: LandmarkBasis, model: TorchSync) -> RecoveryRate:
    """Put shifts of +-1..6 frames into clips and find them again, relative to the lag in the untouched clip.

    The foreign sound of a clip is that of the next clip. If there is one clip alone, the foreign sound is its own.
    """

    def lag(features: SpeechFeatures, mouths: Float32, usable: Bool) -> tuple[int, float]:
        """Return the lag that fits best, and the height of its similarity over the median."""
        scores = similarities_at_lags(*embeddings(features, mouths, usable, basis, model), usable)
        best = int(scores.argmax())
        return best - MAX_LAG, float(scores[best] - np.median(scores))

    hits, own, foreign = [], [], []
    for index, clip in enumerate(clips):
        found, confidence = lag(clip.features, clip.mouth_landmarks, clip.usable)
        own.append(confidence)
        other = clips[(index + 1) % len(clips)]
        # A shorter sound is repeated: the foreign stretch is as long as the clip, so that confidences can be compared.
        heard = other.features[np.arange(len(clip)) % len(other)]
        foreign.append(lag(heard, clip.mouth_landmarks, clip.usable)[1])
        for shift in (-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6):
            picture = slice(max(0, shift), len(clip) + min(0, shift))
            sound = slice(max(0, -shift), len(clip) + min(0, -shift))
            again, _ = lag(clip.features[sound], clip.mouth_landmarks[picture], clip.usable[picture])
            hits.append(abs(again - (found + shift)) <= 1 and abs(found) <= 3)
    return RecoveryRate(float(np.mean(hits)), float(np.mean(own)), float(np.mean(foreign)))
