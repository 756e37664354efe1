"""Settings of the training loop that all networks have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """Length, pace and machinery of a training.

    Attributes:
        steps: optimiser steps.
        seed: seed of the weights, of the batches and of all noise.
        batches: batches whose gradients one step averages, over all processes (gradient accumulation). Several processes share
            them, so the number must be a multiple of the number of processes.
        check_every: steps between checks on held-out clips. Each check writes a checkpoint.
        patience: checks without a better score after which the training ends early; 0: never.
        workers: processes that prepare batches; 0: one thread that prepares the next batch.
        threads: threads of PyTorch.
        bfloat16: compute forward passes in bfloat16 where PyTorch allows that (autocast). A processor without instructions for
            bfloat16 computes in float32.
    """

    steps: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)] = 0
    batches: Annotated[int, Field(ge=1)] = 1
    check_every: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    bfloat16: bool = False
