"""A tiny configuration."""

from __future__ import annotations

from research.methods.everyone.motion import EveryoneBatchConfig, EveryoneTrainingConfig
from research.training.training import LoopSettings
from services.motion.predictors.everyone.network import EveryoneConfig

TINY = EveryoneTrainingConfig(
    network=EveryoneConfig(num_expression=4, channels=8, bank_channels=2, bank_widths=(1, 3), heads=2),
    batches=EveryoneBatchConfig(batch_size=2),
    loop=LoopSettings(steps=4, check_every=2),
)
