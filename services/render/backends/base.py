"""The interface of all backends: a loaded model takes named arrays and gives named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.render.backends.registry import ModelFile
from services.render.types import Precision

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Backend(Protocol):
    """A runtime. Safe for several threads. The same inputs give the same bytes, whatever batch they come in."""

    @property
    def name(self) -> str:
        """Such as `onnxruntime`."""

    @property
    def precision(self) -> Precision:
        """Of its arithmetic."""

    @property
    def num_threads(self) -> int:
        """Of one inference."""

    def load(self, model: ModelFile) -> None:
        """Make a model ready; loading it again changes nothing.

        Raises:
            ModelNotFound: its file is missing or cannot be read.
        """

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Compute a loaded model.

        Args:
            model: name of a loaded model.
            inputs: arrays by the model's input names, with a batch axis.

        Raises:
            ModelNotFound: no model of this name was loaded.
            AcceleratorOutOfMemory: the device has no memory for this batch now.
        """
