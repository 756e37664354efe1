"""Training of the landmark generator of `hetero` (Xie et al. 2021, Sec. 3.2) on heterogeneous sources.

One step sees clips with a face, whether their pixels are good or not, and speech without pictures. Clips with a face teach
landmarks (Eq. 2). Both kinds teach the mel encoder the names of the phones, and the generator what a linear filter expects of these
phones, or of the states (teacher.py).

The best step is selected on held-out clips by the correlation of opening and lip width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Array, Float32
from services.motion.predictors.hetero.network import HeteroNetwork
from services.motion.predictors.hetero.train.batches import Batch, BatchSampler
from services.motion.predictors.hetero.train.config import HeteroTrainingConfig
from services.motion.predictors.hetero.train.losses import GeneratorLoss
from services.motion.predictors.hetero.train.sources import mean_pose_landmarks
from services.motion.predictors.hetero.train.teacher import fit_teacher
from services.motion.predictors.hetero.train.torch_predictor import TorchHetero
from services.motion.speech_states import STATES
from services.motion.train.basis import STYLE_BASIS, basis_digest, style_basis
from services.motion.train.clips import Clips, TrainingClip, clips_of
from services.motion.train.selection import Scores, checked_groups
from services.motion.train.training import PredictorTraining
from services.training.networks import Opening

BASIS_NETWORK: Final = "ugc_motion"
"""Network whose run brings the landmark basis of the style."""
_MEAN_CLIPS: Final = 200
"""Most clips that the mean speaker is measured on."""


class HeteroTraining(PredictorTraining[Batch[Float32]]):
    """Training of the landmark generator."""

    def __init__(self, opening: Opening) -> None:
        config: HeteroTrainingConfig = opening.config
        data = opening.data
        self._basis = style_basis(opening, BASIS_NETWORK)
        heard = config.network.heard
        extra = () if heard == "paper" else (STATES,)
        clips = clips_of(data, "train", extra)
        self.groups = checked_groups(data, extra)
        rows = {row.name: row for row in data.rows}
        self._poses = lru_cache(maxsize=None)(lambda name: mean_pose_landmarks(data, rows[name]))
        self._mean_clips = clips.chosen(_MEAN_CLIPS, config.loop.seed)
        self._loss = GeneratorLoss(self._basis, config.losses, opening.device.torch_device)
        fitted_on = clips.chosen(config.statistics_clips, config.loop.seed)
        speech = [row for row in data.of("train") if not row.has_face] if config.batches.heard else []
        teacher = fit_teacher(fitted_on, self._basis, config.teacher, heard)
        sampler = BatchSampler(data, clips, speech, self._basis, teacher, config.batches)
        torch.manual_seed(config.loop.seed)
        network = HeteroNetwork(config.network)
        if heard != "paper":
            network.set_filter(torch.from_numpy(teacher.shared.weight), torch.from_numpy(teacher.shared.bias))
        network.set_constants(
            torch.from_numpy(self._basis.dual / self._basis.typical_spread[:, None, None]),
            torch.from_numpy(_mean_over_speakers(self._mean_clips, lambda clip: clip.mouth_landmarks[clip.usable].mean(axis=0))),
            torch.from_numpy(_mean_over_speakers(self._mean_clips, self._pose_of)),
        )
        super().__init__(config, opening.device, clips, network, sampler)
        self.clips = (*self.clips, *speech)

    def losses(self, batch: Batch[Float32]) -> dict[str, Tensor]:
        """Return the losses of GeneratorLoss."""
        network = self.module
        assert isinstance(network, HeteroNetwork)
        here = batch.on(self.device.torch_device)
        generated = network.generate(here.speech, *network.person(here.reference, here.pose))
        with self.device.autocast(bfloat16=False):
            return self._loss(generated, here)

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        return self._predictor().scores(self.groups)

    def constants(self) -> Mapping[str, Array]:
        """Return the vectors of the mean speaker, and the mean face."""
        predictor, network = self._predictor(), self.average
        assert isinstance(network, HeteroNetwork)

        def person(clip: TrainingClip) -> Float32:
            return np.stack(predictor.person(clip.mouth_landmarks[clip.usable], self._pose_of(clip)))

        reference, pose = _mean_over_speakers(self._mean_clips, person)

        return {
            "mean_reference": reference,
            "mean_pose": pose,
            "mean_face": network.person.pose.mean.cpu().numpy(),
        }

    def facts(self) -> Mapping[str, str]:
        """Return the digest of the landmark basis."""
        return {STYLE_BASIS: basis_digest(self._basis)}

    def _pose_of(self, clip: TrainingClip) -> Float32:
        return self._poses(clip.name)

    def _predictor(self) -> TorchHetero:
        assert isinstance(self.average, HeteroNetwork)
        return TorchHetero(self.average, self._basis, self._pose_of)


def _mean_over_speakers(clips: Clips, measure: Callable[[TrainingClip], Array]) -> Float32:
    """Return the mean over speakers of the mean over at most five clips of a speaker."""
    groups = clips.by_speaker().values()
    means = [np.mean([measure(clip) for clip in group[:5]], axis=0) for group in groups]
    return np.asarray(np.mean(means, axis=0), np.float32)
