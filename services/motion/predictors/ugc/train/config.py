"""Configurations of the training of `ugc`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field

from services.motion.predictors.ugc.network import UgcConfig
from services.motion.predictors.ugc.train.batches import BatchConfig
from services.motion.predictors.ugc.train.prior import PriorConfig
from services.motion.train.landmark_losses import LossWeights
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        losses: weights of the losses.
        prior: settings of the prior.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips that basis and prior are fitted to.
    """

    network: UgcConfig = field(default_factory=UgcConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    prior: PriorConfig = field(default_factory=PriorConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1200, check_every=200))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": UgcTrainingConfig(),
    # AdaIN-VC (Chou et al. 2019): 128 channels, a style code of 128, a ConvBank of 128 channels each for the widths 1 to 8.
    "large": UgcTrainingConfig(
        network=UgcConfig(channels=128, style_size=128, bank_channels=128, bank_widths=tuple(range(1, 9))),
        batches=BatchConfig(batch_size=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}
