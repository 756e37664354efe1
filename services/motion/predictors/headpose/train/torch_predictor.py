"""The network of `headpose` in PyTorch over whole clips, and the correlation of its poses."""

from __future__ import annotations

from statistics import fmean
from typing import Final

import numpy as np
import torch

from services.common.array_types import Bool, Float32
from services.motion.basis import LandmarkBasis
from services.motion.expression import expressed, expression_spread
from services.motion.features import NUM_CONTENT
from services.motion.predictors.headpose.inputs import NUM_COEFFICIENTS, heard_clip
from services.motion.predictors.headpose.network import HeadposeNetwork, HeadposeOutput
from services.motion.predictors.headpose.train.data import clip_poses
from services.motion.style import Style
from services.motion.train.clips import TrainingClip
from services.motion.train.metrics import pearson
from services.motion.types import SpeechFeatures

HEARD: Final = {"mfcc": (False, True), "phones": (True, False), "both": (True, True)}
"""Ablation: whether the network hears content rows (phones and energies), and whether the network hears cepstra."""

POSE_AXES: Final = ("r_pitch", "r_yaw", "r_roll")


def heard_channels(heard: str) -> Bool:
    """Return the channels that an ablation leaves, bool [64]."""
    content, cepstra = HEARD[heard]
    return np.repeat([content, cepstra], [NUM_CONTENT, NUM_COEFFICIENTS])


class TorchHeadpose:
    """The network in PyTorch over whole clips as protocol.Predict."""

    def __init__(self, network: HeadposeNetwork, mouth: LandmarkBasis, expression: LandmarkBasis, channels: Bool) -> None:
        self._network, self._mouth, self._expression, self._channels = network, mouth, expression, channels

    @torch.no_grad()
    def raw(self, features: SpeechFeatures) -> HeadposeOutput:
        """Return the network's own answer for a clip of T frames: [1, T, ...]."""
        config = self._network.config
        rows = heard_clip(features, config.past, config.ahead) * self._channels
        zero = torch.zeros(1, config.hidden)
        answer: HeadposeOutput = self._network(torch.from_numpy(rows.astype(np.float32))[None], zero, zero)
        return answer

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        coefficients = self.raw(features).expression[0].numpy()
        spread = expression_spread(style.spread, self._mouth, self._expression)
        return expressed(coefficients * spread, self._expression, style)


def pose_correlation(predictor: TorchHeadpose, clips: list[TrainingClip]) -> dict[str, float]:
    """Return the mean r of predicted and true pitch, yaw and roll over clips."""
    found: dict[str, list[float]] = {name: [] for name in POSE_AXES}
    for clip in clips:
        predicted, truth = predictor.raw(clip.features).pose[0].numpy(), clip_poses(clip)
        for axis, name in enumerate(found):
            found[name].append(pearson(predicted[clip.usable, axis], truth[clip.usable, axis]))
    return {name: fmean(values) for name, values in found.items()}
