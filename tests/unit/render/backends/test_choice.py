from __future__ import annotations

import pytest

from services.render.backends.choice import CHOICES, PLAIN, TABLE, Choice, choice_for, default_choice
from services.render.backends.processor import Processor
from services.render.types import Precision

BOTH = {"onnxruntime", "openvino"}


def test_the_table_has_a_choice_for_every_kind_of_processor() -> None:
    assert set(TABLE) == set(Processor)
    assert set(TABLE.values()) <= set(CHOICES)


def test_a_processor_with_matrix_units_computes_in_bfloat16() -> None:
    assert choice_for(Processor.AMX, BOTH) == Choice("openvino", Precision.BFLOAT16)


@pytest.mark.parametrize("processor", [kind for kind in Processor if kind is not Processor.AMX])
def test_other_processors_compute_in_int8_on_onnx_runtime(processor: Processor) -> None:
    assert choice_for(processor, BOTH) == Choice("onnxruntime", Precision.INT8)


@pytest.mark.parametrize("processor", list(Processor))
def test_without_the_backend_of_the_table_the_plain_choice_is_taken(processor: Processor) -> None:
    assert choice_for(processor, {"onnxruntime"}) == PLAIN["cpu"]


def test_the_choice_of_this_machine_is_one_of_the_table() -> None:
    assert default_choice("cpu") in {*TABLE.values()}


def test_a_gpu_computes_in_float32() -> None:
    assert default_choice("cuda") == Choice("onnxruntime", Precision.FLOAT32)
