"""OpenVINO in the process: fast on Intel and AMD CPUs, above all in bfloat16. It does not compute the quantised networks.

Each inference computes one frame. So batches change no byte, and OpenVINO knows all shapes when it compiles. With a batch axis of
any length, networks took 1.1 to 1.5 times as long.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.render.backends.base import Arrays, check_choice, unreadable
from services.render.backends.model_files import ModelFile
from services.render.types import Precision

_HINTS = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}


@cache
def _core() -> ov.Core:
    """Return the one core of this process.

    Each core sets the alternate signal stack of its thread, and at its end restores the stack that was set before. Of two cores
    whose lives overlap, the second can restore the stack of the first after that stack was freed. The next signal then ends the
    process.
    """
    return ov.Core()


class OpenVinoBackend:
    """Backend with compiled models of OpenVINO, and one inference request per model and thread.

    Args:
        precision: float32 or bfloat16.
        num_threads: threads of one inference.

    Raises:
        InvalidRequestError: OpenVINO, or OpenVINO on this CPU, does not compute in the precision.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, *, precision: Precision, num_threads: int) -> None:
        check_choice(self.name, precision)
        self.precision = precision
        self.num_threads = num_threads
        self._core = _core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision is Precision.BFLOAT16 and "BF16" not in capabilities:
            raise InvalidRequestError(
                "this CPU does not compute in bfloat16 (it has neither avx512_bf16 nor amx_bf16): set DUBSTAGE_PRECISION=float32",
                field="DUBSTAGE_PRECISION",
            )
        self._compiled: dict[str, ov.CompiledModel] = {}
        self._files: dict[str, ModelFile] = {}
        self._of_thread = threading.local()

    def load(self, model: ModelFile) -> None:
        """See Backend.load."""
        if model.name in self._compiled:
            return
        # The precision is always given. Without a hint, OpenVINO takes bfloat16 on some CPUs, and bytes depend on the machine.
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.num_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        content = model.content()
        try:
            read = self._core.read_model(content)
            read.reshape({form.name: [1, *form.shape] for form in model.inputs})
            self._compiled[model.name] = self._core.compile_model(read, "CPU", settings)
        except RuntimeError as error:
            raise unreadable(self.name, model, error) from error
        self._files[model.name] = model

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See Backend.infer."""
        if model not in self._compiled:
            raise ModelNotFoundError(f"model {model!r} is not loaded", resource=model)
        requests: dict[str, ov.InferRequest] | None = getattr(self._of_thread, "requests", None)
        if requests is None:
            requests = self._of_thread.requests = {}
        if model not in requests:
            requests[model] = self._compiled[model].create_infer_request()
        request, file = requests[model], self._files[model]
        num_frames = len(next(iter(inputs.values())))
        # The tensors belong to the request, and the next frame is written into them.
        outputs: dict[str, npt.NDArray[Any]] = {form.name: np.empty((num_frames, *form.shape), form.dtype) for form in file.outputs}
        for frame in range(num_frames):
            request.infer({name: values[frame : frame + 1] for name, values in inputs.items()})
            for name, values in outputs.items():
                values[frame] = request.get_tensor(name).data[0]
        return outputs
