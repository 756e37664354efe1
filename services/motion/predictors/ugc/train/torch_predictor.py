"""The network of `ugc` in PyTorch over whole clips, and the style code of the mean speaker."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.predictors.ugc.inputs import WINDOW, WINDOW_PAST, heard_clip
from services.motion.predictors.ugc.network import UgcNetwork
from services.motion.style import Style, StyleCode, measure_mouth
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.types import SpeechFeatures


class TorchUgc:
    """The network in PyTorch as protocol.Predict, all windows of a clip in one batch, and as style.StyleNetwork."""

    def __init__(self, network: UgcNetwork, basis: LandmarkBasis) -> None:
        self._network, self._basis = network, basis

    @torch.no_grad()
    def encode(self, coefficients: Float32) -> StyleCode:
        """Encode coefficients, see style.StyleNetwork."""
        code = self._network.style.encode(torch.from_numpy(coefficients[None]))
        return StyleCode(code[0].numpy(), self._network.style.modulate(code)[0].numpy())

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = torch.from_numpy(heard_clip(features)).unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        modulation = torch.from_numpy(style.modulation.copy())[None].expand(len(windows), -1, -1, -1)
        coefficients = self._network(windows, modulation)
        offsets = self._basis.reconstruct(coefficients[:, WINDOW_PAST].numpy() * style.spread)
        return np.asarray(style.rest_mouth + offsets, dtype=np.float32)


@torch.no_grad()
def typical_code(network: UgcNetwork, clips: list[TrainingClip], basis: LandmarkBasis) -> Tensor:
    """Return the mean style code of the training speakers, [S]."""
    codes = []
    for group in by_speaker(clips).values():
        for clip in group[:5]:
            mouths = clip.mouth_landmarks[clip.usable]
            coefficients = basis.project(mouths - measure_mouth(mouths, basis).rest_mouth) / basis.typical_spread
            codes.append(network.style.encode(torch.from_numpy(coefficients[None].astype(np.float32)))[0] / min(5, len(group)))
    return torch.stack(codes).sum(0) / len(by_speaker(clips))
