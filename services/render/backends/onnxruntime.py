"""ONNX Runtime in the process: on any CPU, and on CUDA if the GPU build of ONNX Runtime is installed."""

from __future__ import annotations

import ctypes
import io
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from services.common.errors import AcceleratorOutOfMemoryError, BackendUnavailableError, InvalidRequestError, ModelNotFoundError
from services.render.backends.base import Arrays, check_choice, unreadable
from services.render.backends.model_files import ModelFile
from services.render.types import Precision

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "cpu": {},
    # The default tries all algorithms and takes the fastest one of the moment: another process could compute other bytes.
    "cuda": {"cudnn_conv_algo_search": "HEURISTIC"},
}
CUDA_BATCH: Final = 16
"""Frames of each inference on a GPU. The algorithms of a GPU depend on the size of the batch, and so do the last bits: with one
size, a frame has the same bytes whichever frames share its batch."""
_REMEDY = (
    "put the package onnxruntime-gpu with its libraries in the place of onnxruntime (pip uninstall onnxruntime; "
    "pip install 'onnxruntime-gpu[cuda,cudnn]'), or set DUBSTAGE_DEVICE=cpu"
)


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
                f"this build of onnxruntime has no {provider}: {_REMEDY}",
                field="DUBSTAGE_DEVICE",
            )
        check_choice(self.name, precision)
        if device == "cuda":
            # Libraries of CUDA and cuDNN that packages of pip hold are found only after this call, which prints what is missing.
            with redirect_stdout(io.StringIO()):
                ort.preload_dlls()
        self.precision = precision
        self.num_threads = num_threads
        self.device, self._provider = device, provider
        self._sessions: dict[str, ort.InferenceSession] = {}
        # On a GPU, two inferences of a session at once end in an illegal access to memory (seen with ONNX Runtime 1.31).
        self._one_at_a_time = threading.Lock()

    def load(self, model: ModelFile) -> None:
        """See Backend.load.

        Raises:
            BackendUnavailableError: ONNX Runtime would compute the network on another device than the one that was asked for.
        """
        if model.name in self._sessions:
            return
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # Spinning threads would take cores from the stages that share the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        content = model.content()
        try:
            session = ort.InferenceSession(content, options, providers=[(self._provider, dict(_OPTIONS[self.device]))])
        except Exception as error:  # its exception types are not exported
            raise unreadable(self.name, model, error) from error
        # ONNX Runtime goes on with the processor if a provider does not start, and says so only in its log.
        if self._provider not in session.get_providers():
            raise BackendUnavailableError(
                f"DUBSTAGE_DEVICE=cuda: ONNX Runtime {ort.__version__} cannot compute on a GPU here ({_why_not_cuda()}): "
                f"install the NVIDIA driver, give the process a GPU, and {_REMEDY}"
            )
        self._sessions[model.name] = session

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See Backend.infer."""
        if model not in self._sessions:
            raise ModelNotFoundError(f"model {model!r} is not loaded", resource=model)
        session = self._sessions[model]
        try:
            if self.device == "cpu":
                return _computed(session, inputs)
            with self._one_at_a_time:
                return in_batches(inputs, lambda batch: _computed(session, batch))
        except Exception as error:  # its exception types are not exported
            if "out of memory" in str(error).lower() or "failed to allocate" in str(error).lower():
                raise AcceleratorOutOfMemoryError(f"no memory for this batch: {error}") from error
            raise


def _computed(session: ort.InferenceSession, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def in_batches(inputs: Arrays, compute: Callable[[Arrays], Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Compute frames in batches of CUDA_BATCH; return the outputs of all frames by name.

    Args:
        inputs: arrays by input name, B frames.
        compute: computes one batch. The last frame fills a batch up.
    """
    count = len(next(iter(inputs.values())))
    parts: list[Mapping[str, npt.NDArray[Any]]] = []
    for begin in range(0, count, CUDA_BATCH):
        rows = np.minimum(np.arange(begin, begin + CUDA_BATCH), count - 1)
        parts.append(compute({name: values[rows] for name, values in inputs.items()}))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _why_not_cuda() -> str:
    """Return why the CUDA provider did not start: the library that is missing, or that there is no device."""
    folder = Path(ort.__file__).with_name("capi")
    for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
        try:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        except OSError as problem:
            return str(problem).replace(f"{folder}/", "")
    return "no CUDA device was found"
