"""ONNX Runtime in the process: on any CPU, and on CUDA if the GPU build of ONNX Runtime is installed."""

from __future__ import annotations

from typing import Any, Literal

import numpy.typing as npt
import onnxruntime as ort

from services.common.errors import AcceleratorOutOfMemoryError, InvalidRequestError, ModelNotFoundError
from services.render.backends.base import Arrays, check_choice, unreadable
from services.render.backends.model_files import ModelFile
from services.render.types import Precision

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeBackend:
    """Backend with one ONNX Runtime session per model.

    Args:
        device: cpu or cuda.
        precision: float32, or int8 for quantised files.
        num_threads: threads of one inference on the CPU.

    Raises:
        InvalidRequestError: the installed build has no provider for the device, or ONNX Runtime does not compute in the precision.
    """

    name = "onnxruntime"

    def __init__(self, *, device: Literal["cpu", "cuda"], precision: Precision, num_threads: int) -> None:
        provider = _PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise InvalidRequestError(
                f"this build of onnxruntime has no {provider}: install onnxruntime-gpu, or set DUBSTAGE_DEVICE=cpu",
                field="DUBSTAGE_DEVICE",
            )
        check_choice(self.name, precision)
        self.precision = precision
        self.num_threads = num_threads
        self._provider = provider
        self._sessions: dict[str, ort.InferenceSession] = {}

    def load(self, model: ModelFile) -> None:
        """See Backend.load."""
        if model.name in self._sessions:
            return
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Spinning threads would take cores from the stages that share the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._sessions[model.name] = ort.InferenceSession(str(model.path), options, providers=[self._provider])
        except Exception as error:  # its exception types are not exported
            raise unreadable(self.name, model, error) from error

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See Backend.infer."""
        if model not in self._sessions:
            raise ModelNotFoundError(f"model {model!r} is not loaded", resource=model)
        session = self._sessions[model]
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # its exception types are not exported
            if "out of memory" in str(error).lower() or "failed to allocate" in str(error).lower():
                raise AcceleratorOutOfMemoryError(f"no memory for this batch: {error}") from error
            raise
