"""Configurations of the training of `hetero`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field

from services.motion.predictors.hetero.network import HeteroConfig
from services.motion.predictors.hetero.train.batches import BatchConfig
from services.motion.predictors.hetero.train.losses import LossWeights
from services.motion.predictors.hetero.train.teacher import TeacherConfig
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        losses: weights of the losses.
        teacher: settings of the teacher of speech without pictures.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips with a face that the teacher is fitted to.
    """

    network: HeteroConfig = field(default_factory=HeteroConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=300, check_every=100))
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=2e-3, warm_up_steps=50, averaging=0.99)
    )
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": HeteroTrainingConfig(),
    # The paper's spectrogram in place of the speech encoder's states, for comparison. The stage cannot serve it.
    "paper": HeteroTrainingConfig(
        network=HeteroConfig(heard="paper"),
        batches=BatchConfig(seen=8),
        losses=LossWeights(velocity=0.5, opening=0.0, correlation=0.0, closure=0.0, taught=1.0, phones=1.0),
        loop=LoopSettings(steps=2400, check_every=400),
    ),
    # Wav2Lip (Prajwal et al. 2020), whose spectrum encoder the paper takes over: up to 512 channels.
    "large": HeteroTrainingConfig(
        network=HeteroConfig(channels=(64, 128, 256), embedding=512, decoder_channels=64),
        batches=BatchConfig(seen=64, heard=64, frames=50, reference_frames=32),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}
