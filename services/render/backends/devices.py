"""The device that computes networks if the settings leave the choice to the machine."""

from __future__ import annotations

import ctypes
from typing import Final, Literal

from services.render.backends.base import BackendName, Device
from services.render.types import Precision

DeviceChoice = Literal["auto", "cpu", "cuda"]
"""A device, or `auto`: the GPU where there is one and the installed packages compute there, otherwise the processor."""
_CUDA_LIBRARY: Final = "libcuda.so.1"
_CUDA_SUCCESS: Final = 0


def network_device(choice: DeviceChoice, backend: BackendName | None, precision: Precision | None) -> Device:
    """Return the device of the networks of renderers.

    Args:
        choice: the setting. `cpu` and `cuda` are returned as they are.
        backend: runtime that the settings name; None: none. A runtime for processors alone keeps `auto` on the processor.
        precision: number format that the settings name; None: none.
    """
    if choice != "auto":
        return choice
    if backend not in (None, "onnxruntime") or precision not in (None, Precision.FLOAT32):
        return "cpu"
    # The usual build of ONNX Runtime has no CUDA provider, and is asked first: a look at the driver takes longer.
    import onnxruntime

    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and has_gpu() else "cpu"


def personalization_device(choice: DeviceChoice) -> Device:
    """Return the device that personalisations may run on, without PyTorch, which takes seconds to import. With `auto`, PyTorch may
    find less than the driver does, and takes the processor then.
    """
    return choice if choice != "auto" else "cuda" if has_gpu() else "cpu"


def has_gpu(library: str = _CUDA_LIBRARY) -> bool:
    """Return whether NVIDIA's driver finds a GPU that this process may use.

    Args:
        library: file name of the driver's library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == _CUDA_SUCCESS and driver.cuDeviceGetCount(ctypes.byref(count)) == _CUDA_SUCCESS and count.value > 0
