"""Configurations of the training of `everybody`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field

from services.motion.predictors.everybody.network import EverybodyConfig
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of L_shape and of L_velocity. The weight of L_exp is 1."""

    shape: float = 1.0
    velocity: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes.
        losses: weights of the losses.
        loop: length and pace.
        optimiser: rates.
        batch_size: pairs of neighbouring frames a batch.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        filter_strength: strength of the filter's penalty, in units of the mean variance of an input.
        noise: standard deviation of the noise on the network's inputs.
        level: standard deviation of noise on the inputs that is constant over a window.
        statistics_clips: most clips that filter and silence are measured on.
    """

    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=1000, check_every=250, seed=1))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    batch_size: Annotated[int, Field(ge=1)] = 64
    speaker_exponent: float = 0.4
    filter_strength: Annotated[float, Field(gt=0.0)] = 0.01
    noise: Annotated[float, Field(ge=0.0)] = 0.2
    level: Annotated[float, Field(ge=0.0)] = 0.15
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": EverybodyTrainingConfig(),
    # Steps and rate of the paper (B, "Training Details"), which states no sizes; sizes of the audio encoder and the LSTM of ATVG's
    # landmark network (Chen et al. 2019): 256.
    "large": EverybodyTrainingConfig(
        network=EverybodyConfig(projection=256, hidden=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, seed=1, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-4, warm_up_steps=1000, averaging=0.999),
        batch_size=256,
        statistics_clips=2000,
    ),
}
