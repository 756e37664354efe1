"""Training of the network of `everyone`.

The closed-form filter is fitted first: it is a part of what is served, and the baseline that the whole must beat. The best step is
selected on held-out clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from services.common.array_types import Float32
from services.motion.predictors.everyone.network import EveryoneNetwork, FilterAlone
from services.motion.predictors.everyone.train.batches import Batch, BatchSampler
from services.motion.predictors.everyone.train.config import EveryoneTrainingConfig
from services.motion.predictors.everyone.train.filter import fit_filter
from services.motion.predictors.everyone.train.torch_predictor import TorchEveryone
from services.motion.speech_states import STATES
from services.motion.train.clips import clips_of
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.landmark_losses import LandmarkLoss
from services.motion.train.selection import NoStyleCode, Scores, checked_groups, scores_by_group
from services.motion.train.states_filter import range_of_states
from services.motion.train.training import PredictorTraining
from services.training.networks import Opening

BUILT_ON: Final = "ugc_motion"
"""Network whose landmark basis the training uses."""


class EveryoneTraining(PredictorTraining[Batch[Float32]]):
    """Training of the audio-to-expression network (the paper's Sec. 3.6)."""

    def __init__(self, opening: Opening) -> None:
        config: EveryoneTrainingConfig = opening.config
        heard = self._heard = config.network.heard
        extra = () if heard == "paper" else (STATES,)
        clips = clips_of(opening.data, "train", extra)
        self.groups = checked_groups(opening.data, extra)
        self._space = ExpressionSpace.built_on(opening, BUILT_ON, config.network.num_expression)
        self._loss = LandmarkLoss(self._space.expression, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network = EveryoneNetwork(config.network)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        fitted = fit_filter(chosen, self._space, config.filter, heard)
        network.set_filter(torch.from_numpy(fitted.shared.weight), torch.from_numpy(fitted.shared.bias))
        if heard != "paper":
            network.set_range(*map(torch.from_numpy, range_of_states(chosen)))
        sampler = BatchSampler(clips, self._space, fitted, config.batches, heard)
        super().__init__(config, opening.device, clips, network, sampler)

    def losses(self, batch: Batch[Float32]) -> dict[str, Tensor]:
        """Return the losses of LandmarkLoss, means over the branches. Each branch learns what the filter leaves by itself."""
        network = self.module
        assert isinstance(network, EveryoneNetwork)
        here = batch.on(self.device.torch_device)
        filtered = network.filtered(here.speech)
        answers = [filtered + branch for branch in network.branches_of(here.speech)]
        with self.device.autocast(bfloat16=False):
            parts = [self._loss(answer.float(), here)._asdict() for answer in answers]
        return {name: torch.stack([each[name] for each in parts]).mean() for name in parts[0]}

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        assert isinstance(self.average, EveryoneNetwork)
        return scores_by_group(self.groups, self._space.mouth, NoStyleCode(), TorchEveryone(self.average, self._space, self._heard))

    def baseline(self) -> Scores:
        """Return the scores of the filter alone."""
        assert isinstance(self.average, EveryoneNetwork)
        predictor = TorchEveryone(FilterAlone(self.average), self._space, self._heard)
        return scores_by_group(self.groups, self._space.mouth, NoStyleCode(), predictor)

    def constants(self) -> Mapping[str, Float32]:
        """Return the expression basis."""
        return self._space.expression.arrays()

    def facts(self) -> Mapping[str, str]:
        """Return the morphable model and the digest of the landmark basis."""
        return self._space.facts()
