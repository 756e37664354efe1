"""Tests of the requests that backends in the process refuse."""

from __future__ import annotations

import pytest

from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from services.render.backends.base import BackendName
from services.render.settings import RenderSettings
from services.render.streams import make_backend
from services.render.types import Precision

REFUSED = [
    ("openvino", Precision.INT8, "set DUBSTAGE_BACKEND=onnxruntime, or DUBSTAGE_PRECISION=float32 or bfloat16"),
    ("onnxruntime", Precision.BFLOAT16, "set DUBSTAGE_BACKEND=openvino, or DUBSTAGE_PRECISION=float32 or int8"),
]


@pytest.mark.parametrize(("backend", "precision", "remedy"), REFUSED)
def test_unsupported_precision_refused(backend: BackendName, precision: Precision, remedy: str) -> None:
    """A backend refuses a precision that it does not compute in."""
    with pytest.raises(InvalidRequestError, match=f"DUBSTAGE_BACKEND={backend} .* DUBSTAGE_PRECISION={precision}: {remedy}"):
        make_backend(device="cpu", backend=backend, precision=precision, num_threads=1)


@pytest.mark.parametrize(("backend", "precision", "remedy"), REFUSED)
def test_settings_refuse_before_reading(
    monkeypatch: pytest.MonkeyPatch, backend: BackendName, precision: Precision, remedy: str
) -> None:
    """The settings refuse the precision before a network is read."""
    monkeypatch.setenv("DUBSTAGE_BACKEND", backend)
    monkeypatch.setenv("DUBSTAGE_PRECISION", str(precision))
    with pytest.raises(InvalidRequestError, match=f"wrong settings: .* DUBSTAGE_PRECISION={precision}: {remedy}"):
        load_settings(RenderSettings)
