"""Training of the networks of `ugc`: style encoder, content encoder and decoder on top of a prior in closed form.

The best step is selected on held-out clips (other sentences, and speakers that were never trained on) by the correlation of opening
and lip width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from services.common.array_types import Float32
from services.motion.predictors.ugc.network import UgcNetwork
from services.motion.predictors.ugc.train.batches import Batch, BatchSampler
from services.motion.predictors.ugc.train.config import UgcTrainingConfig
from services.motion.predictors.ugc.train.prior import fit_prior
from services.motion.predictors.ugc.train.torch_predictor import TorchUgc, typical_code
from services.motion.train.basis import basis_of
from services.motion.train.clips import clips_of
from services.motion.train.landmark_losses import LandmarkLoss
from services.motion.train.selection import Scores, checked_groups, scores_by_group
from services.motion.train.training import PredictorTraining
from services.training.networks import Opening

CODE_NOISE: Final = 0.1
"""Standard deviation of the noise on style codes in training."""
_CODE_CLIPS: Final = 200
"""Most clips that the mean speaker's style code is measured on."""


class UgcTraining(PredictorTraining[Batch[Float32]]):
    """Training of the style translation network (UGC paper, Sec. III-A)."""

    def __init__(self, opening: Opening) -> None:
        config: UgcTrainingConfig = opening.config
        clips = clips_of(opening.data, "train")
        self.groups = checked_groups(opening.data)
        chosen = clips.chosen(config.statistics_clips, config.loop.seed)
        self._code_clips = clips.chosen(_CODE_CLIPS, config.loop.seed)
        self._basis = basis_of(chosen, config.network.num_coefficients)
        self._loss = LandmarkLoss(self._basis, config.losses, opening.device.torch_device)
        torch.manual_seed(config.loop.seed)
        network, prior = UgcNetwork(config.network), fit_prior(chosen, self._basis, config.prior)
        network.set_prior(torch.from_numpy(prior.weight), torch.from_numpy(prior.bias))
        super().__init__(config, opening.device, clips, network, BatchSampler(clips, self._basis, prior, config.batches))

    def losses(self, batch: Batch[Float32]) -> dict[str, Tensor]:
        """Return the losses of LandmarkLoss."""
        network = self.module
        assert isinstance(network, UgcNetwork)
        here = batch.on(self.device.torch_device)
        code = network.style.encode(here.style)
        code = code + CODE_NOISE * torch.randn_like(code)
        coefficients = network(here.content, network.style.modulate(code))
        with self.device.autocast(bfloat16=False):
            return self._loss(coefficients.float(), here)._asdict()

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        predictor = self._predictor()
        return scores_by_group(self.groups, self._basis, predictor, predictor)

    def constants(self) -> Mapping[str, Float32]:
        """Return the landmark basis and the mean speaker's style code."""
        return {**self._basis.arrays(), "mean_code": typical_code(self._predictor(), self._code_clips, self._basis)}

    def _predictor(self) -> TorchUgc:
        assert isinstance(self.average, UgcNetwork)
        return TorchUgc(self.average, self._basis)
