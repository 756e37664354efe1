"""What backends in the process refuse."""

from __future__ import annotations

import pytest

from services.common.errors import InvalidRequest
from services.render.backends.onnxruntime_backend import OnnxRuntimeBackend
from services.render.types import Precision


def test_onnxruntime_refuses_bfloat16() -> None:
    with pytest.raises(InvalidRequest, match="use openvino"):
        OnnxRuntimeBackend(device="cpu", precision=Precision.BFLOAT16, num_threads=1)
