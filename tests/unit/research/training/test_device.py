"""The processor of a training."""

from __future__ import annotations

import pytest
import torch

from research.training.device import CPU, open_device
from services.common.errors import InvalidRequestError


def test_missing_gpu_is_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is not there is a clear error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidRequestError, match="--device cuda: PyTorch") as caught, open_device("cuda"):
        pass
    assert caught.value.field == "device"


def test_an_unknown_device_is_told_the_devices() -> None:
    with pytest.raises(InvalidRequestError, match=r"--device tpu: .* cpu and cuda"), open_device("tpu"):
        pass


def test_one_process_on_the_cpu_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with open_device("cpu") as device:
        assert device == CPU
        assert device.is_first
        assert device.mean(3.0) == device.same_everywhere(3.0) == 3.0


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_cpu_bfloat16_where_supported(flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU computes in bfloat16 where it has instructions for bfloat16."""
    monkeypatch.setattr("research.training.device.cpu_flags", lambda: frozenset(flags))
    with CPU.autocast(bfloat16=True):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    with CPU.autocast(bfloat16=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
