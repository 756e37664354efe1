"""Quantisation of an exported network to int8."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Array, UInt8
from services.common.errors import InvalidRequest
from services.render.backends.registry import TensorForm

_STATE_SPREAD: Final = 0.03
"""Standard deviation of the actors' states that the network is calibrated with."""


def quantise(raw: Path, target: Path, inputs: Sequence[TensorForm], calibration: UInt8) -> None:
    """Write the network with convolutions in int8: static quantisation (QDQ, per channel) with real pictures.

    Args:
        raw: the network in float32, an ONNX file.
        target: path for the quantised ONNX file.
        inputs: the network's inputs, exactly one of them uint8.
        calibration: uint8 [N, H, W, C], pictures for the uint8 input. All other inputs get random numbers.

    Raises:
        InvalidRequest: the network has another number of uint8 inputs than one, or the pictures do not fit the input.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    pictures = [form for form in inputs if form.dtype == "uint8"]
    if len(pictures) != 1 or calibration.shape[1:] != pictures[0].shape:
        wanted = {form.name: form.shape for form in pictures}
        raise InvalidRequest(
            f"calibration pictures have shape {calibration.shape[1:]}, the network's picture inputs are {wanted}: train with this "
            "version of dubstage",
            field="calibration",
        )

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(calibration)
            self._rng = np.random.default_rng(0)

        def get_next(self) -> dict[str, Array] | None:
            picture = next(self._rest, None)
            return None if picture is None else {form.name: self._value(form, picture) for form in inputs}

        def _value(self, form: TensorForm, picture: UInt8) -> Array:
            # Actors' states move the activations, whose range must have room for them.
            value = picture if form.dtype == "uint8" else self._rng.normal(0.0, _STATE_SPREAD, form.shape).astype(form.dtype)
            return value[None] if form.batched else value

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            # Seven bits: with eight, CPUs without VNNI saturate when they add two products in 16 bits.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
