"""What the modules of the Triton backend share: the models that are served, and the failures that can be cured."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from services.common.errors import AcceleratorOutOfMemory, ContractBroken
from services.render.backends.registry import ModelFile


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a served model.

    Attributes:
        name: as exported.
        datatype: Triton's name, such as FP32.
        row_shape: without the batch axis.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type."""
        kind: type[np.generic] = triton_to_np_dtype(self.datatype)
        return np.dtype(kind)

    @property
    def row_bytes(self) -> int:
        """Of one item of the batch."""
        return int(np.prod(self.row_shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server has loaded, in the version whose network is ours.

    Attributes:
        file: the exported network.
        version: of it in the server's repository.
        runtime: that computes it there.
        num_threads: of one inference there.
        max_batch: most items in one inference.
        inputs, outputs: its tensors.
    """

    file: ModelFile
    version: str
    runtime: str
    num_threads: int
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Cure(Enum):
    """What makes a failed inference worth another try."""

    RETRY = "retry"
    """Nothing but the try itself."""
    PROBE = "probe"
    """Perhaps nothing: reload the model where one frame does not come through either."""
    RELOAD = "reload"
    """Unload and load the model: it is gone, or its process is."""


class CurableError(Exception):
    """An inference failed for a reason that is not in its inputs."""

    def __init__(self, message: str, cure: Cure) -> None:
        super().__init__(message)
        self.cure = cure


_CURES = {
    # A stub process that was killed answers so for ever, while the model's readiness stays true.
    "INTERNAL": Cure.RELOAD,
    # The server restarted: under explicit control it then has no model.
    "NOT_FOUND": Cure.RELOAD,
    "UNAVAILABLE": Cure.PROBE,
    "DEADLINE_EXCEEDED": Cure.PROBE,
    "UNKNOWN": Cure.PROBE,
    "CANCELLED": Cure.RETRY,
}


def status_of(error: InferenceServerException) -> str:
    """Name of the gRPC code, such as `INTERNAL`."""
    return str(error.status()).removeprefix("StatusCode.")


def translated(error: InferenceServerException) -> Exception:
    """The failed inference as an error of ours: CurableError, AcceleratorOutOfMemory or ContractBroken."""
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
