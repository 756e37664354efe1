"""A tiny configuration."""

from __future__ import annotations

from research.methods.ugc.motion import PriorConfig, UgcBatchConfig, UgcTrainingConfig
from research.training.training import LoopSettings
from services.motion.predictors.ugc.network import UgcConfig

TINY = UgcTrainingConfig(
    loop=LoopSettings(steps=4, check_every=2),
    batches=UgcBatchConfig(batch_size=2),
    network=UgcConfig(num_coefficients=4, prior_width=3, channels=16, bank_channels=4, style_size=4),
    prior=PriorConfig(width=3),
)
