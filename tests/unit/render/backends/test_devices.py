"""The device that is taken if the settings leave the choice to the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from services.render.backends import devices
from services.render.backends.devices import has_gpu, network_device
from services.render.settings import RenderSettings
from services.render.types import Precision

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("providers", "gpu", "backend", "precision", "taken"),
    [
        ([CPU], True, None, None, "cpu"),
        ([CUDA, CPU], False, None, None, "cpu"),
        ([CUDA, CPU], True, None, None, "cuda"),
        ([CUDA, CPU], True, "onnxruntime", Precision.FLOAT32, "cuda"),
        ([CUDA, CPU], True, "onnxruntime", Precision.INT8, "cpu"),
        ([CUDA, CPU], True, "openvino", Precision.FLOAT32, "cpu"),
        ([CUDA, CPU], True, "triton", None, "cpu"),
    ],
)
def test_auto_takes_usable_gpu(
    providers: list[str], gpu: bool, backend: str, precision: Precision, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is the GPU where ONNX Runtime computes on one and the settings name no runtime for processors."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    monkeypatch.setattr(devices, "has_gpu", lambda: gpu)
    assert network_device("auto", backend, precision) == taken
    assert network_device("cpu", backend, precision) == "cpu"
    assert network_device("cuda", backend, precision) == "cuda"


def test_no_driver_means_no_gpu(tmp_path: Path) -> None:
    """A machine without NVIDIA's driver has no GPU, and neither has one whose library cannot be loaded."""
    damaged = tmp_path / "libcuda.so.1"
    damaged.write_bytes(b"no library")
    assert not has_gpu(str(tmp_path / "missing.so"))
    assert not has_gpu(str(damaged))


def test_processor_only_build_computes_as_before() -> None:
    """With the usual packages, the default is what `cpu` is."""
    assert RenderSettings().runtime() == RenderSettings(device="cpu").runtime()


def test_gpu_needs_a_backend_that_computes_there() -> None:
    """OpenVINO computes on processors only, so that it is refused with a GPU."""
    with pytest.raises(InvalidRequestError, match=r"DUBSTAGE_BACKEND=openvino .* DUBSTAGE_DEVICE=cuda"):
        load_settings(RenderSettings, device="cuda", backend="openvino", precision=Precision.FLOAT32)
    load_settings(RenderSettings, device="cuda", backend="triton")
    load_settings(RenderSettings, device="cuda", backend="onnxruntime", precision=Precision.FLOAT32)
