"""Interface of all backends: a loaded model takes arrays by name and returns arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.render.backends.registry import ModelFile
from services.render.types import Precision

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Backend(Protocol):
    """Runtime of networks. Safe for several threads. A frame's outputs have the same bytes in every batch."""

    @property
    def name(self) -> str:
        """Name of the runtime, such as `onnxruntime`."""

    @property
    def precision(self) -> Precision:
        """Number format of the arithmetic."""

    @property
    def num_threads(self) -> int:
        """Threads of one inference."""

    def load(self, model: ModelFile) -> None:
        """Make a model ready. Loading a model again changes nothing.

        Raises:
            ModelNotFound: the model's file is missing or cannot be read.
        """

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Compute a loaded model; return its outputs by name, with a batch axis.

        Args:
            model: name of a loaded model.
            inputs: arrays by the model's input names, with a batch axis. Inputs without a batch axis (ModelFile.inputs) belong to
                the actor and are given once for the whole batch.

        Raises:
            ModelNotFound: no model of this name was loaded.
            AcceleratorOutOfMemory: the device has no memory for this batch now.
        """
