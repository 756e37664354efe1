"""The network of `headpose` in PyTorch over whole clips, and the correlation of its poses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Final

import numpy as np
import torch

from services.common.array_types import Bool, Float32
from services.motion.expression import expressed, expression_spread
from services.motion.features import NUM_CONTENT
from services.motion.predictors.headpose.inputs import NUM_COEFFICIENTS, heard_clip
from services.motion.predictors.headpose.network import HeadposeNetwork, HeadposeOutput
from services.motion.predictors.headpose.train.correlation import POSE_AXES
from services.motion.predictors.headpose.train.data import clip_poses
from services.motion.style import Style
from services.motion.train.clips import TrainingClip
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.metrics import pearson
from services.motion.types import SpeechFeatures

HEARD: Final = {"mfcc": (False, True), "phones": (True, False), "both": (True, True)}
"""Ablation: whether the network hears content rows (phones and energies), and whether the network hears cepstra."""


def heard_channels(heard: str) -> Bool:
    """Return the channels that an ablation leaves, bool [64]."""
    content, cepstra = HEARD[heard]
    return np.repeat([content, cepstra], [NUM_CONTENT, NUM_COEFFICIENTS])


class TorchHeadpose:
    """The network in PyTorch over whole clips as protocol.Predict."""

    def __init__(self, network: HeadposeNetwork, space: ExpressionSpace, channels: Bool) -> None:
        self._network, self._space, self._channels = network, space, channels
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def raw(self, features: SpeechFeatures) -> HeadposeOutput:
        """Return the network's own answer for a clip of T frames, on the CPU: [1, T, ...]."""
        config = self._network.config
        rows = heard_clip(features, config.past, config.ahead) * self._channels
        zero = torch.zeros(1, config.hidden, device=self._device)
        answer = self._network(torch.from_numpy(rows.astype(np.float32))[None].to(self._device), zero, zero)
        return HeadposeOutput(*(value.cpu() for value in answer))

    def poses(self, features: SpeechFeatures) -> Float32:
        """Return the network's own head poses for a clip of T frames, float32 [T, 6], in units of the person's spread."""
        found: Float32 = self.raw(features).pose[0].numpy()
        return found

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before constraints, see protocol.Predict."""
        coefficients = self.raw(features).expression[0].numpy()
        spread = expression_spread(style.spread, self._space.mouth, self._space.expression)
        return expressed(coefficients * spread, self._space.expression, style)


def pose_correlation(predictor: TorchHeadpose, clips: Iterable[TrainingClip]) -> dict[str, float]:
    """Return the mean r of predicted and true pitch, yaw and roll over clips."""
    found: dict[str, list[float]] = {name: [] for name in POSE_AXES}
    for clip in clips:
        predicted, truth = predictor.poses(clip.features), clip_poses(clip)
        for axis, name in enumerate(found):
            found[name].append(pearson(predicted[clip.usable, axis], truth[clip.usable, axis]))
    return {name: fmean(values) for name, values in found.items()}


def mean_pose_correlation(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean r of poses over axes and groups of clips, from scores that hold `pose_correlation`."""
    return fmean(score[axis] for score in scores.values() for axis in POSE_AXES)
