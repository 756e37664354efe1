"""Training of the network of `everybody`.

The closed-form filter is fitted first: the filter is half of what is served, and the baseline that the whole must beat. The best
step is selected on held-out clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.motion.predictors.everybody.inputs import FEATURE
from services.motion.predictors.everybody.network import EverybodyNetwork
from services.motion.predictors.everybody.train.config import EverybodyTrainingConfig
from services.motion.predictors.everybody.train.data import EverybodySampler, EverybodyWindows, fit_filter, silent_row
from services.motion.predictors.everybody.train.losses import EverybodyLoss
from services.motion.predictors.everybody.train.torch_predictor import TorchEverybody, filter_alone
from services.motion.train.clips import clips_of
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.selection import NoStyleCode, Scores, checked_groups, scores_by_group
from services.motion.train.training import PredictorTraining
from services.training.networks import Opening

BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""


class EverybodyTraining(PredictorTraining[EverybodyWindows[Float32]]):
    """Training of the Audio-to-Expression network (Everybody's Talkin', Sec. 3.2.2)."""

    def __init__(self, opening: Opening) -> None:
        config: EverybodyTrainingConfig = opening.config
        clips = clips_of(opening.data, "train", (FEATURE,))
        self.groups = checked_groups(opening.data, (FEATURE,))
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._silence = silent_row(chosen)
        self._loss = EverybodyLoss(self._space.expression, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network = EverybodyNetwork(config.network)
        fitted = fit_filter(chosen, self._space, self._silence, config)
        network.set_filter(torch.from_numpy(fitted.shared.weight), torch.from_numpy(fitted.shared.bias))
        sampler = EverybodySampler(clips, self._space, self._silence, fitted, config)
        super().__init__(config, opening.device, clips, network, sampler)

    def losses(self, batch: EverybodyWindows[Float32]) -> dict[str, Tensor]:
        """Return the losses of EverybodyLoss."""
        here = batch.on(self.device.torch_device)
        predicted = self.module(here.window.flatten(0, 1)).unflatten(0, (-1, 2))
        with self.device.autocast(bfloat16=False):
            return self._loss(predicted.float(), here)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        return self._scores_of(self.average)

    def baseline(self) -> Scores:
        """Return the scores of the filter alone."""
        assert isinstance(self.average, EverybodyNetwork)
        return self._scores_of(filter_alone(self.average))

    def constants(self) -> Mapping[str, Float32]:
        """Return the expression basis and the row of silence."""
        return {**self._space.expression.arrays(), "silence": self._silence}

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()

    def _scores_of(self, network: nn.Module) -> Scores:
        predictor = TorchEverybody(network, self._space, self._silence)
        return scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)
