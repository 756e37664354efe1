"""Default backend of the networks: a committed table from the kind of processor to a backend and a precision.

The choice changes the bytes of the result. So it depends on the installation and the kind of processor only, never on a
measurement at run time, and ListModels names it (docs/decisions/0011-backend-per-processor.md has the figures).
`python -m services.render.train.compare` measures every backend on the machine that it runs on.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

from services.common.chassis.cpu import cpu_flags
from services.common.errors import InvalidRequest
from services.render.backends.processor import Processor, processor_of
from services.render.types import Precision

Device = Literal["cpu", "cuda"]
BackendName = Literal["onnxruntime", "openvino", "triton"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Backend and the number format of its arithmetic."""

    backend: BackendName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


CHOICES: Final = (
    Choice("onnxruntime", Precision.FLOAT32),
    Choice("onnxruntime", Precision.INT8),
    Choice("openvino", Precision.FLOAT32),
    Choice("openvino", Precision.BFLOAT16),
)
"""All backends and precisions that compute in this process. OpenVINO has no int8, because the kind of processor decides whether
OpenVINO reads the quantised networks."""

PLAIN: Final[dict[Device, Choice]] = {
    "cpu": Choice("onnxruntime", Precision.INT8),
    "cuda": Choice("onnxruntime", Precision.FLOAT32),
}
"""Choice that every processor can compute, and the precision of networks on Triton."""

TABLE: Final[dict[Processor, Choice]] = {
    # A frame's network takes 5.8 ms instead of 8.4 ms, and the picture is closer to float32.
    Processor.AMX: Choice("openvino", Precision.BFLOAT16),
    Processor.AVX512_VNNI: PLAIN["cpu"],
    Processor.AVX2: PLAIN["cpu"],
    # Not measured.
    Processor.X86: PLAIN["cpu"],
    Processor.ARM: PLAIN["cpu"],
    Processor.OTHER: PLAIN["cpu"],
}


def precisions_of(backend: str) -> tuple[Precision, ...]:
    """Return the number formats that a backend of this process computes in."""
    return tuple(choice.precision for choice in CHOICES if choice.backend == backend)


def check_choice(backend: str, precision: Precision) -> None:
    """Check that a backend of this process computes in a precision.

    Raises:
        InvalidRequest: it does not. The message names both settings and the pairs that there are.
    """
    if precision in precisions_of(backend):
        return
    others = [choice.backend for choice in CHOICES if choice.precision is precision]
    raise InvalidRequest(
        f"DUBSTAGE_BACKEND={backend} does not compute in DUBSTAGE_PRECISION={precision}: set "
        f"DUBSTAGE_BACKEND={' or '.join(others)}, or DUBSTAGE_PRECISION={' or '.join(precisions_of(backend))}",
        field="DUBSTAGE_PRECISION",
    )


def choice_for(processor: Processor, installed: Collection[str]) -> Choice:
    """Return the table's choice for a processor, or the plain choice if the backend of the table is not installed.

    Args:
        processor: kind of processor that computes.
        installed: names of installed backends.
    """
    choice = TABLE[processor]
    return choice if choice.backend in installed else PLAIN["cpu"]


def default_choice(device: Device) -> Choice:
    """Return the default on this machine."""
    if device != "cpu":
        return PLAIN[device]
    # A backend has the name of its package.
    installed = {choice.backend for choice in CHOICES if find_spec(choice.backend) is not None}
    return choice_for(this_processor(), installed)


def this_processor() -> Processor:
    """Return the kind of this machine's processor."""
    return processor_of(platform.machine(), cpu_flags())
