"""Interface of all backends, and the default backend of a machine. A loaded model takes arrays by name and returns arrays by name.

The default backend of the networks is a committed table from the kind of processor to a backend and a precision.

The choice changes the bytes of the result. So it depends on the installation and the kind of processor only, never on a
measurement at run time, and ListModels names it (docs/decisions/0011-backend-per-processor.md has the figures).
`python -m research.render.compare` measures every backend on the machine that it runs on.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.server.resources import cpu_flags
from services.render.backends.model_files import ModelFile
from services.render.types import Precision

_X86: Final = frozenset({"x86_64", "amd64"})
_ARM: Final = frozenset({"aarch64", "arm64"})
Device = Literal["cpu", "cuda"]
BackendName = Literal["onnxruntime", "openvino", "triton"]
Arrays = Mapping[str, npt.NDArray[np.generic]]
_MOST_CHARACTERS: Final = 500


class Processor(StrEnum):
    """Kind of processor, named after its fastest instructions for networks."""

    AMX = "amx"
    """x86 with matrix units for bfloat16 and int8."""
    AVX512_VNNI = "avx512_vnni"
    """x86 with products of int8 in registers of 512 bits."""
    AVX2 = "avx2"
    """x86 with registers of 256 bits."""
    X86 = "x86"
    """Another x86, or an x86 whose instruction sets are not known."""
    ARM = "arm"
    OTHER = "other"


_NEEDED: Final[tuple[tuple[Processor, frozenset[str]], ...]] = (
    # OpenVINO asks for avx512_bf16 before it computes in bfloat16, and a virtual machine can hide this flag.
    (Processor.AMX, frozenset({"amx_tile", "amx_bf16", "amx_int8", "avx512_bf16"})),
    (Processor.AVX512_VNNI, frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"})),
    (Processor.AVX2, frozenset({"avx2", "fma"})),
)


def processor_of(machine: str, flags: frozenset[str]) -> Processor:
    """Return the kind of a processor.

    Args:
        machine: name of the architecture, as `platform.machine()` returns it.
        flags: instruction sets by Linux's names; empty where they are not known.
    """
    if machine.lower() in _ARM:
        return Processor.ARM
    if machine.lower() not in _X86:
        return Processor.OTHER
    return next((kind for kind, needed in _NEEDED if needed <= flags), Processor.X86)


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """Backend and the number format of its arithmetic."""

    backend: BackendName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


BACKEND_CHOICES: Final = (
    BackendChoice("onnxruntime", Precision.FLOAT32),
    BackendChoice("onnxruntime", Precision.INT8),
    BackendChoice("openvino", Precision.FLOAT32),
    BackendChoice("openvino", Precision.BFLOAT16),
)
"""All backends and precisions that compute in this process. OpenVINO has no int8, because the kind of processor decides whether
OpenVINO reads the quantised networks."""

PLAIN_CHOICE: Final[dict[Device, BackendChoice]] = {
    "cpu": BackendChoice("onnxruntime", Precision.INT8),
    "cuda": BackendChoice("onnxruntime", Precision.FLOAT32),
}
"""Choice that every processor can compute, and the precision of networks on Triton."""

CHOICE_OF_PROCESSOR: Final[dict[Processor, BackendChoice]] = {
    # A frame's network takes 5.8 ms instead of 8.4 ms, and the picture is closer to float32.
    Processor.AMX: BackendChoice("openvino", Precision.BFLOAT16),
    Processor.AVX512_VNNI: PLAIN_CHOICE["cpu"],
    Processor.AVX2: PLAIN_CHOICE["cpu"],
    # The choices below were not measured.
    Processor.X86: PLAIN_CHOICE["cpu"],
    Processor.ARM: PLAIN_CHOICE["cpu"],
    Processor.OTHER: PLAIN_CHOICE["cpu"],
}


def precisions_of(backend: str) -> tuple[Precision, ...]:
    """Return the number formats that a backend of this process computes in."""
    return tuple(choice.precision for choice in BACKEND_CHOICES if choice.backend == backend)


def check_choice(backend: str, precision: Precision) -> None:
    """Check that a backend of this process computes in a precision.

    Raises:
        InvalidRequestError: it does not. The message names both settings and the pairs that there are.
    """
    if precision in precisions_of(backend):
        return
    others = [choice.backend for choice in BACKEND_CHOICES if choice.precision is precision]
    raise InvalidRequestError(
        f"DUBSTAGE_BACKEND={backend} does not compute in DUBSTAGE_PRECISION={precision}: set "
        f"DUBSTAGE_BACKEND={' or '.join(others)}, or DUBSTAGE_PRECISION={' or '.join(precisions_of(backend))}",
        field="DUBSTAGE_PRECISION",
    )


def choice_for(processor: Processor, installed: Collection[str]) -> BackendChoice:
    """Return the table's choice for a processor, or the plain choice if the backend of the table is not installed.

    Args:
        processor: kind of processor that computes.
        installed: names of installed backends.
    """
    choice = CHOICE_OF_PROCESSOR[processor]
    return choice if choice.backend in installed else PLAIN_CHOICE["cpu"]


def default_choice(device: Device) -> BackendChoice:
    """Return the default on this machine."""
    if device != "cpu":
        return PLAIN_CHOICE[device]
    # A backend has the name of its package.
    installed = {choice.backend for choice in BACKEND_CHOICES if find_spec(choice.backend) is not None}
    return choice_for(this_processor(), installed)


def this_processor() -> Processor:
    """Return the kind of this machine's processor."""
    return processor_of(platform.machine(), cpu_flags())


class Backend(Protocol):
    """Runtime of networks. Safe for several threads. A frame's outputs have the same bytes in every batch."""

    @property
    def name(self) -> str:
        """Name of the runtime, such as `onnxruntime`."""

    @property
    def precision(self) -> Precision:
        """Number format of the arithmetic."""

    @property
    def device(self) -> str:
        """Device that computes: `cpu`, `cuda`, or `triton`, whose server chooses."""

    @property
    def num_threads(self) -> int:
        """Threads of one inference."""

    def load(self, model: ModelFile) -> None:
        """Make a model ready. Loading a model again changes nothing.

        Raises:
            ModelNotFoundError: the backend cannot read this model, and may read others. The message has the reason and the remedy.
            BackendUnavailableError: the backend's server does not answer, or the device that was asked for is not there.
        """

    def infer(self, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Compute a loaded model; return its outputs by name, with a batch axis.

        Args:
            model: name of a loaded model.
            inputs: arrays by the model's input names, with a batch axis.

        Raises:
            ModelNotFoundError: no model of this name was loaded.
            AcceleratorOutOfMemoryError: the device has no memory for this batch now.
        """


def unreadable(backend: str, model: ModelFile, error: Exception) -> ModelNotFoundError:
    """Return the error for a network that a runtime of this process cannot read. Callers of the stage see the text.

    Args:
        backend: name of the runtime.
        error: error of the runtime.
    """
    return ModelNotFoundError(
        f"{backend} on this machine cannot read {model.path.name} ({error_summary(str(error), model)}): choose another runtime "
        "with DUBSTAGE_BACKEND and DUBSTAGE_PRECISION, or export the model again",
        resource=model.name,
    )


def error_summary(text: str, model: ModelFile) -> str:
    """Return the first lines of a runtime's error text on one line, without the folder of the model's file."""
    return " ".join(text.replace(str(model.path), model.path.name).split())[:_MOST_CHARACTERS].rstrip(" .:")


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonOptions:
    """Address and options of a server.

    Attributes:
        url: HOST:PORT of the server's gRPC.
        shared_memory: pass arrays through /dev/shm; the server must be on the same host and see the same /dev/shm.
        max_in_flight: most inferences at the server at once; more wait in this process, because limits of the server's queue
            stall requests.
        max_frames: most frames in one inference through shared memory.
        timeout_s: time allowed to one inference, seconds.
        start_timeout_s: time within which the server must answer when the stage starts, seconds.
        load_timeout_s: time allowed to load a model, seconds.
        probe_interval_s: interval at which an idle model computes one frame as a probe, seconds.
        heal_attempts: failed reloads in a row after which the stage stops serving.
        heal_wait_s: time that each reload waits for a server that restarts, seconds.
    """

    url: str
    shared_memory: bool = False
    max_in_flight: int = 16
    max_frames: int = 4
    timeout_s: float = 10.0
    start_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    probe_interval_s: float = 5.0
    heal_attempts: int = 5
    heal_wait_s: float = 5.0
