"""A tiny configuration of the sync network's training."""

from __future__ import annotations

from research.motion.sync import SyncConfig, SyncTrainingConfig
from research.training.training import LoopSettings

TINY_SYNC = SyncTrainingConfig(
    network=SyncConfig(num_coefficients=4, channels=8, embedding=4),
    loop=LoopSettings(steps=4, check_every=2),
    batch_size=2,
    frames=40,
)
