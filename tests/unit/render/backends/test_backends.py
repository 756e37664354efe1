"""Tests of the requests that backends in the process refuse."""

from __future__ import annotations

import pytest

from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from services.render.backends.base import BackendName
from services.render.settings import RenderSettings
from services.render.streams import make_backend
from services.render.types import Precision
from tests.refusals import raised

REFUSED = [
    (
        "openvino",
        Precision.INT8,
        "DUBSTAGE_BACKEND=openvino does not compute in DUBSTAGE_PRECISION=int8: set DUBSTAGE_BACKEND=onnxruntime, or "
        "DUBSTAGE_PRECISION=float32 or bfloat16",
    ),
    (
        "onnxruntime",
        Precision.BFLOAT16,
        "DUBSTAGE_BACKEND=onnxruntime does not compute in DUBSTAGE_PRECISION=bfloat16: set DUBSTAGE_BACKEND=openvino, or "
        "DUBSTAGE_PRECISION=float32 or int8",
    ),
]


@pytest.mark.parametrize(("backend", "precision", "text"), REFUSED)
def test_unsupported_precision_refused(backend: BackendName, precision: Precision, text: str) -> None:
    """A backend refuses a precision that it does not compute in."""
    with raised(InvalidRequestError, message=text):
        make_backend(device="cpu", backend=backend, precision=precision, num_threads=1)


@pytest.mark.parametrize(("backend", "precision", "text"), REFUSED)
def test_settings_refuse_before_reading(
    monkeypatch: pytest.MonkeyPatch, backend: BackendName, precision: Precision, text: str
) -> None:
    """The settings refuse the precision before a network is read."""
    monkeypatch.setenv("DUBSTAGE_BACKEND", backend)
    monkeypatch.setenv("DUBSTAGE_PRECISION", str(precision))
    with raised(InvalidRequestError, message=f"wrong settings: {text}"):
        load_settings(RenderSettings)
