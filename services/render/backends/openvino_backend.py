"""OpenVINO in the process: fast on Intel and AMD CPUs, above all in bfloat16."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy.typing as npt
import openvino as ov

from services.common.errors import InvalidRequest, ModelNotFound
from services.render.backends.base import Arrays
from services.render.backends.registry import ModelFile
from services.render.types import Precision

_HINTS = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16", Precision.INT8: "f32"}


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
        precision: float32, bfloat16, or int8 for quantised files.
        num_threads: threads of one inference.

    Raises:
        InvalidRequest: this CPU does not compute in the precision.
    """

    name = "openvino"

    def __init__(self, *, precision: Precision, num_threads: int) -> None:
        self.precision = precision
        self.num_threads = num_threads
        self._core = _core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision is Precision.BFLOAT16 and "BF16" not in capabilities:
            raise InvalidRequest(
                "this CPU does not compute in bfloat16: set DUBSTAGE_PRECISION=float32", field="DUBSTAGE_PRECISION"
            )
        self._compiled: dict[str, ov.CompiledModel] = {}
        self._outputs: dict[str, list[str]] = {}
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
        try:
            read = self._core.read_model(str(model.path))
            # Compiling adds further names to the outputs, so the exported names are noted before.
            self._outputs[model.name] = [output.any_name for output in read.outputs]
            self._compiled[model.name] = self._core.compile_model(read, "CPU", settings)
        except RuntimeError as error:
            raise ModelNotFound(f"openvino cannot read {model.path}: {error}", resource=model.name) from error

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See Backend.infer."""
        if model not in self._compiled:
            raise ModelNotFound(f"model {model!r} is not loaded", resource=model)
        requests: dict[str, ov.InferRequest] | None = getattr(self._of_thread, "requests", None)
        if requests is None:
            requests = self._of_thread.requests = {}
        if model not in requests:
            requests[model] = self._compiled[model].create_infer_request()
        request = requests[model]
        request.infer(dict(inputs))
        # The tensors belong to the request, and the next call writes into them.
        return {name: request.get_output_tensor(place).data.copy() for place, name in enumerate(self._outputs[model])}
