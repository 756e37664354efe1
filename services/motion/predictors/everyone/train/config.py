"""Configurations of the training of `everyone`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field

from services.motion.predictors.everyone.network import EveryoneConfig
from services.motion.predictors.everyone.train.batches import BatchConfig
from services.motion.predictors.everyone.train.filter import FilterConfig
from services.motion.train.landmark_losses import LossWeights
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        losses: weights of the losses.
        filter: settings of the closed-form filter.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips that the filter is fitted to.
    """

    network: EveryoneConfig = field(default_factory=EveryoneConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    filter: FilterConfig = field(default_factory=FilterConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=300, check_every=100))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": EveryoneTrainingConfig(),
    # Phone probabilities and energies in place of the speech encoder's states, for comparison. The stage cannot serve it.
    "paper": EveryoneTrainingConfig(
        network=EveryoneConfig(heard="paper", noise=0.0, dropout=0.3, share=0.8), loop=LoopSettings(steps=1200, check_every=400)
    ),
    # The paper states no sizes. Four layers of 256 channels are a small transformer for hours of talking heads.
    "large": EveryoneTrainingConfig(
        network=EveryoneConfig(
            channels=256, bank_channels=64, bank_widths=(1, 3, 5, 7, 9), conv_layers=6, attention_layers=4, heads=8
        ),
        batches=BatchConfig(batch_size=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=5e-4, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}
