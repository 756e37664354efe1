"""The backend that settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.common.errors import InvalidRequest
from services.render.backends.base import Backend
from services.render.backends.choice import PLAIN, BackendName, Choice, Device, default_choice
from services.render.backends.onnxruntime_backend import OnnxRuntimeBackend
from services.render.backends.triton_options import TritonOptions
from services.render.types import Precision

if TYPE_CHECKING:
    from services.render.backends.triton_healing import TritonMonitor


def make_backend(
    *,
    device: Device,
    backend: BackendName | None,
    precision: Precision | None,
    num_threads: int,
    triton: TritonOptions | None = None,
    monitor: TritonMonitor | None = None,
) -> Backend:
    """Make the backend that settings ask for. Where settings leave it open, the table's choice for this machine is taken.

    Args:
        device: device that computes networks; with Triton it decides the default precision only.
        backend: name of the runtime; None: the table's choice.
        precision: number format of the arithmetic; None: the table's choice.
        num_threads: threads of one inference in this process. Threads in Triton are set by its model repository.
        triton: options of backend `triton`.
        monitor: receives failures and healings of Triton.

    Raises:
        InvalidRequest: this machine or the installed build has no such backend or precision, or `triton` is missing.
    """
    if backend == "triton":
        # Triton's client library is imported only where Triton is used.
        from services.render.backends.triton_backend import TritonBackend

        if triton is None:
            raise InvalidRequest("backend triton needs to know where Triton is", field="DUBSTAGE_TRITON_URL")
        return TritonBackend(triton, precision=precision or PLAIN[device].precision, monitor=monitor)
    choice = default_choice(device) if backend is None or precision is None else Choice(backend, precision)
    if choice.backend == "onnxruntime":
        return OnnxRuntimeBackend(device=device, precision=choice.precision, num_threads=num_threads)
    # OpenVINO takes a second to import, and is imported only where it is used.
    from services.render.backends.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(precision=choice.precision, num_threads=num_threads)
