"""The network of `ugc` in PyTorch over whole clips, and the style code of the mean speaker."""

from __future__ import annotations

import numpy as np
import torch

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.predictors.ugc.inputs import WINDOW, WINDOW_PAST, heard_clip
from services.motion.predictors.ugc.network import UgcNetwork
from services.motion.style import Style, StyleCode, measure_mouth
from services.motion.train.clips import Clips
from services.motion.types import SpeechFeatures


class TorchUgc:
    """The network in PyTorch as protocol.Predict, all windows of a clip in one batch, and as style.StyleNetwork."""

    def __init__(self, network: UgcNetwork, basis: LandmarkBasis) -> None:
        self._network, self._basis = network, basis
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def encode(self, coefficients: Float32) -> StyleCode:
        """Encode coefficients, see style.StyleNetwork."""
        code = self._network.style.encode(torch.from_numpy(coefficients[None]).to(self._device))
        return StyleCode(code[0].cpu().numpy(), self._network.style.modulate(code)[0].cpu().numpy())

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        windows = torch.from_numpy(heard_clip(features)).to(self._device).unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        modulation = torch.tensor(style.modulation, device=self._device)[None].expand(len(windows), -1, -1, -1)
        coefficients = self._network(windows, modulation)
        offsets = self._basis.reconstruct(coefficients[:, WINDOW_PAST].cpu().numpy() * style.spread)
        return np.asarray(style.rest_mouth + offsets, dtype=np.float32)


def typical_code(predictor: TorchUgc, clips: Clips, basis: LandmarkBasis) -> Float32:
    """Return the mean style code of the training speakers, float32 [S]: of each speaker, the mean over at most five clips."""
    codes = []
    for group in clips.by_speaker().values():
        own = []
        for clip in group[:5]:
            mouths = clip.mouth_landmarks[clip.usable]
            coefficients = basis.project(mouths - measure_mouth(mouths, basis).rest_mouth) / basis.typical_spread
            own.append(predictor.encode(coefficients.astype(np.float32)).code)
        codes.append(np.mean(own, axis=0))
    return np.asarray(np.mean(codes, axis=0), np.float32)
