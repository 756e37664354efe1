"""Interface of all backends: a loaded model takes arrays by name and returns arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from services.common.errors import ModelNotFound
from services.render.backends.registry import ModelFile
from services.render.types import Precision

Arrays = Mapping[str, npt.NDArray[np.generic]]
_MOST_CHARACTERS: Final = 500


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
            ModelNotFound: the backend cannot read this model, and may read others. The message has the reason and the remedy.
            BackendUnavailable: the backend's server does not answer.
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


def unreadable(backend: str, model: ModelFile, error: Exception) -> ModelNotFound:
    """Return the error for a network that a runtime of this process cannot read. Callers of the stage see the text.

    Args:
        backend: name of the runtime.
        model: the exported network.
        error: error of the runtime.
    """
    return ModelNotFound(
        f"{backend} on this machine cannot read {model.path.name} ({error_summary(str(error), model)}): choose another runtime "
        "with DUBSTAGE_BACKEND and DUBSTAGE_PRECISION, or export the model again",
        resource=model.name,
    )


def error_summary(text: str, model: ModelFile) -> str:
    """Return the first lines of a runtime's error text on one line, without the folder of the model's file."""
    return " ".join(text.replace(str(model.path), model.path.name).split())[:_MOST_CHARACTERS].rstrip(" .:")
