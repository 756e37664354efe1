"""Types that the modules of the Triton backend share: served models, and failures that can be cured."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from services.common.errors import AcceleratorOutOfMemory, ContractBroken
from services.render.backends.base import Arrays
from services.render.backends.registry import ModelFile


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a served model.

    Attributes:
        name: name in the exported network.
        datatype: Triton's name of the data type, such as FP32.
        row_shape: shape without the batch axis.
        batched: whether a batch axis comes before `row_shape`. An input without one belongs to the actor.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]
    batched: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's data type."""
        kind: type[np.generic] = triton_to_np_dtype(self.datatype)
        return np.dtype(kind)

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape in a batch of this many rows."""
        return (rows, *self.row_shape) if self.batched else self.row_shape

    def num_bytes(self, rows: int) -> int:
        """Return the size in a batch of this many rows, bytes."""
        return int(np.prod(self.shape(rows))) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server has loaded, in the version with this renderer's network.

    Attributes:
        file: the exported network.
        version: version of the network in the server's repository.
        runtime: runtime that computes the network at the server.
        num_threads: threads of one inference at the server.
        max_batch: most frames in one inference.
        inputs: the network's inputs.
        outputs: the network's outputs.
    """

    file: ModelFile
    version: str
    runtime: str
    num_threads: int
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def num_rows(self, inputs: Arrays) -> int:
        """Return the number of frames in arrays by input name."""
        return next(len(inputs[spec.name]) for spec in self.inputs if spec.batched)


class Cure(Enum):
    """What to do before a failed inference is tried again."""

    RETRY = "retry"
    """Nothing: try again at once."""
    PROBE = "probe"
    """Compute one frame; reload the model if that fails too."""
    RELOAD = "reload"
    """Unload and load the model: the model or its process is gone."""


class CurableError(Exception):
    """An inference failed for a reason other than its inputs."""

    def __init__(self, message: str, cure: Cure) -> None:
        super().__init__(message)
        self.cure = cure


_CURES = {
    # Triton answers so for ever if the model's process was killed, and still calls the model ready.
    "INTERNAL": Cure.RELOAD,
    # The server restarted. Under explicit model control it then has no model.
    "NOT_FOUND": Cure.RELOAD,
    "UNAVAILABLE": Cure.PROBE,
    "DEADLINE_EXCEEDED": Cure.PROBE,
    "UNKNOWN": Cure.PROBE,
    "CANCELLED": Cure.RETRY,
}


def status_of(error: InferenceServerException) -> str:
    """Return the name of the gRPC code, such as `INTERNAL`."""
    return str(error.status()).removeprefix("StatusCode.")


def translated(error: InferenceServerException) -> Exception:
    """Return a failed inference as a dubstage error: CurableError, AcceleratorOutOfMemory or ContractBroken."""
    message = str(error.message())
    lower = message.lower()
    if "out of memory" in lower or "failed to allocate" in lower:
        return AcceleratorOutOfMemory(f"Triton has no memory for this batch: {message}")
    if "shared memory region" in lower:
        return CurableError(message, Cure.RETRY)
    cure = _CURES.get(status_of(error))
    if cure is None:
        return ContractBroken(f"Triton refused an inference: {message}")
    return CurableError(message, cure)
