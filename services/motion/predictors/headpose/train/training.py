"""Training of the network of `headpose` (headpose paper, Sec. 3.2).

The closed-form filter is fitted first and is the baseline that the network must beat: at step 0 the network answers little more
than the filter. The best step is selected on held-out clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Array, Float32
from services.motion.predictors.headpose.network import HeadposeNetwork, HeadposeOutput
from services.motion.predictors.headpose.train.config import HeadposeTrainingConfig
from services.motion.predictors.headpose.train.constants import headpose_constants
from services.motion.predictors.headpose.train.data import HeadposeBatch, HeadposeSampler, fit_filter
from services.motion.predictors.headpose.train.losses import headpose_loss
from services.motion.predictors.headpose.train.torch_predictor import (
    TorchHeadpose,
    heard_channels,
    mean_pose_correlation,
    pose_correlation,
)
from services.motion.train.clips import clips_of
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.selection import NoStyleCode, Scores, checked_groups, scores_by_group, selection_score
from services.motion.train.training import PredictorTraining
from services.training.networks import Opening

BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""
POSE_SHARE: Final = 0.25
"""Weight of r of head poses in the number to select on; the mouth has the weight 1."""


class HeadposeTraining(PredictorTraining[HeadposeBatch[Float32]]):
    """Training of the LSTM from speech to expression and head pose."""

    def __init__(self, opening: Opening) -> None:
        config: HeadposeTrainingConfig = opening.config
        clips = clips_of(opening.data, "train")
        self._config = config
        self.groups = checked_groups(opening.data)
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        self._chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._channels = heard_channels(config.heard)
        self._mask = torch.tensor(self._channels.astype(np.float32), device=opening.device.torch_device)
        self._arrays: dict[str, Array] = {}
        torch.manual_seed(config.loop.seed)
        network = HeadposeNetwork(config.network)
        # Cepstra in the filter lower r on new speakers (.81 to .76): the filter hears them only if the network hears nothing else.
        filtered = self._channels if config.heard == "mfcc" else heard_channels("phones")
        linear = fit_filter(self._chosen, self._space, config, filtered)
        shared = linear.fitted.shared
        network.set_filter(torch.from_numpy(shared.weight), torch.from_numpy(shared.bias))
        super().__init__(config, opening.device, clips, network, HeadposeSampler(clips, self._space, linear, config))

    def losses(self, batch: HeadposeBatch[Float32]) -> dict[str, Tensor]:
        """Return the losses of Eq. 2."""
        here = batch.on(self.device.torch_device)
        zero = torch.zeros(len(here.usable), self._config.network.hidden, device=self.device.torch_device)
        predicted: HeadposeOutput = self.module(here.window * self._mask, zero, zero)
        with self.device.autocast(bfloat16=False):
            return headpose_loss(predicted.expression.float(), predicted.pose.float(), here, self._config.losses)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network: mouths, and the correlation of head poses."""
        predictor = self._predictor()
        mouths = scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)
        return {name: scores | pose_correlation(predictor, self.groups[name]) for name, scores in mouths.items()}

    def selection_score(self, scores: Scores) -> float:
        """Return the number to select on: the mouth's, and a share of the poses' correlation."""
        return selection_score(scores) + POSE_SHARE * mean_pose_correlation(scores)

    def constants(self) -> Mapping[str, Array]:
        """Return the expression basis, and in the end how the training speakers' heads and the signals of their speech move."""
        return {**self._space.expression.arrays(), **self._arrays}

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()

    def finish(self, folder: Path) -> None:
        """Measure the constants of the best network, and write the network anew with them."""
        self.take_best(folder)
        self._arrays = dict(headpose_constants(self._chosen, self._space.mouth, self._predictor().poses))
        self.write(folder)

    def _predictor(self) -> TorchHeadpose:
        assert isinstance(self.average, HeadposeNetwork)
        return TorchHeadpose(self.average, self._space, self._channels)
