"""Configurations of the training of `headpose`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from services.motion.predictors.headpose.network import HeadposeConfig
from services.training.loop_settings import LoopSettings
from services.training.training import OptimiserSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights of Eq. 2, as in the paper. The weight of the expression is 1."""

    pose: float = 0.2
    pose_step: float = 0.01
    expression_step: float = 0.0001


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeTrainingConfig:
    """Everything that decides the result of the training.

    Attributes:
        network: sizes. A look-ahead `network.ahead` other than 2 is an ablation, which is not exported.
        heard: what the network hears: cepstra, content rows (phones and energies), or both. Only `both` is exported.
        losses: weights of the losses.
        loop: length and pace.
        optimiser: rates.
        batch_size: sequences a batch.
        length: frames a sequence.
        speaker_exponent: a speaker with m frames is drawn in proportion to m to this power.
        filter_strength: strength of the filter's penalty, in units of the mean variance of an input.
        statistics_clips: most clips that the filter and the constants are measured on.
    """

    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    heard: Literal["mfcc", "phones", "both"] = "both"
    losses: LossWeights = field(default_factory=LossWeights)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, check_every=100, seed=1))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3))
    batch_size: Annotated[int, Field(ge=1)] = 12
    length: Annotated[int, Field(ge=2)] = 150
    speaker_exponent: float = 0.4
    filter_strength: Annotated[float, Field(gt=0.0)] = 0.03
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": HeadposeTrainingConfig(),
    # The paper states no sizes; sizes of the audio encoder and the LSTM of ATVG's landmark network (Chen et al. 2019): 256.
    "large": HeadposeTrainingConfig(
        network=HeadposeConfig(projection=256, encoded=256, hidden=256),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, seed=1, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-4, warm_up_steps=1000, averaging=0.999),
        batch_size=64,
        statistics_clips=2000,
    ),
}
