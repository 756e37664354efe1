"""Default backend of a device: taken from a table of measurements, never decided at run time.

The choice changes the bytes of the result, so it must not depend on how busy a machine is, nor silently on the abilities of its
CPU. `python -m services.render.train.compare` prints such a table; docs/models holds the card that names the measured machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from services.render.types import Precision

Device = Literal["cpu", "cuda"]
BackendName = Literal["onnxruntime", "openvino", "triton"]

MIN_PICTURE_DB: Final = 45.0
"""Least PSNR to the float32 result in the mouth box, decibels, of a precision that can be a default."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Backend and the number format of its arithmetic."""

    backend: BackendName
    precision: Precision


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table.

    Attributes:
        device: kind of device.
        choice: backend and precision.
        ms_per_frame: processor time of the network alone per frame, one thread, batch 1, milliseconds.
        picture_db: PSNR in the mouth box to ONNX Runtime float32, over frames of held-out clips, decibels.
        everywhere: whether every such device has this choice; bfloat16 needs a CPU with AVX-512.
    """

    device: Device
    choice: Choice
    ms_per_frame: float
    picture_db: float
    everywhere: bool = True


MEASURED: Final = (
    Measurement("cpu", Choice("onnxruntime", Precision.FLOAT32), 10.5, 108.1),
    Measurement("cpu", Choice("onnxruntime", Precision.INT8), 5.2, 57.3),
    Measurement("cpu", Choice("openvino", Precision.FLOAT32), 10.3, 108.1),
    Measurement("cpu", Choice("openvino", Precision.BFLOAT16), 6.9, 69.4, everywhere=False),
    Measurement("cpu", Choice("openvino", Precision.INT8), 5.6, 57.4),
)


def default_choice(device: Device) -> Choice:
    """Return the fastest row that keeps the picture and runs on every such device; without such a row, ONNX Runtime in float32."""
    good = [row for row in MEASURED if row.device == device and row.everywhere and row.picture_db >= MIN_PICTURE_DB]
    if not good:
        return Choice("onnxruntime", Precision.FLOAT32)
    return min(good, key=lambda row: row.ms_per_frame).choice


DEFAULTS: Final = {device: default_choice(device) for device in get_args(Device)}
