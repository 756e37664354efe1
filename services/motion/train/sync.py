"""Training of the sync network.

The loss contrasts shifts: in a stretch of one clip, the sound at the right lag must score above the sound at all other lags. The
lags that the training set states are taken out before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from services.common.array_types import Float32
from services.motion.networks.sync import SyncNetwork, lag_scores
from services.motion.train.basis import basis_of
from services.motion.train.clips import clips_of
from services.motion.train.sync_batches import SyncBatch, SyncSampler, SyncTrainingConfig, long_enough
from services.motion.train.sync_recovery import TorchSync, recovery
from services.motion.train.training import MotionTraining
from services.motion.types import MAX_LAG
from services.training.networks import Opening
from services.training.training import Check

MAX_CHECKED: Final = 24
"""Most held-out clips in a check."""
PREFIX: Final = "sync_"
"""Prefix of the arrays of the sync network's basis."""


def contrastive_loss(audio: Tensor, mouth: Tensor, usable: Tensor, scale: Tensor) -> Tensor:
    """Return the cross entropy of lag 0 among all lags of a stretch, plus that of each frame's own sound among all sounds.

    Args:
        audio: [N, T, E], unit vectors of sound.
        mouth: [N, T, E], unit vectors of mouths.
        usable: [N, T], 1 if the frame counts, otherwise 0.
        scale: scalar, inverse temperature.
    """
    scores = lag_scores(audio, mouth, usable, MAX_LAG)
    target = torch.full((len(scores),), MAX_LAG, device=scores.device)
    whole = functional.cross_entropy(scores * scale * 4.0, target)
    pairs = torch.einsum("nte,nse->nts", mouth, audio) * scale
    # Neighbouring frames sound alike: their pairs count neither as right nor as wrong.
    steps = torch.arange(pairs.shape[1], device=pairs.device)
    near = ((steps[:, None] - steps[None]).abs() == 1).to(pairs.dtype)
    own = functional.cross_entropy((pairs - 1e4 * near).flatten(0, 1), steps.repeat(len(pairs)), reduction="none")
    frames = (own * usable.flatten()).sum() / usable.sum().clamp(min=1.0)
    return whole + 0.3 * frames


class SyncTraining(MotionTraining[SyncBatch[Float32]]):
    """Training of the sync network. The step with the best recovery of inserted shifts on held-out clips is kept."""

    def __init__(self, opening: Opening) -> None:
        config: SyncTrainingConfig = opening.config
        clips = long_enough(clips_of(opening.data, "train"), config.frames, opening.data.folder)
        self._basis = basis_of(clips.chosen(config.statistics_clips, config.loop.seed), config.network.num_coefficients)
        self._held_out = clips_of(opening.data, "val").evenly(MAX_CHECKED)
        torch.manual_seed(config.loop.seed)
        network = SyncNetwork(config.network)
        super().__init__(config, opening.device, clips, network, SyncSampler(clips, self._basis, config))

    def losses(self, batch: SyncBatch[Float32]) -> dict[str, Tensor]:
        """Return the contrastive loss."""
        network = self.module
        assert isinstance(network, SyncNetwork)
        here = batch.on(self.device.torch_device)
        audio, mouth = network.audio(here.content), network.mouth(here.mouth)
        with self.device.autocast(bfloat16=False):
            return {"total": contrastive_loss(audio.float(), mouth.float(), here.usable, network.log_scale.exp())}

    def check(self, step: int, folder: Path) -> Check:
        """Measure the recovery of shifts."""
        average = self.average
        assert isinstance(average, SyncNetwork)
        rate = recovery(self._held_out, self._basis, TorchSync(average))
        return Check(asdict(rate), rate.within_one + 0.1 * (rate.confidence_own - rate.confidence_foreign))

    def constants(self) -> Mapping[str, Float32]:
        """Return the landmark basis of the sync network."""
        return self._basis.arrays(PREFIX)
