"""Tests of the parts that the searches of personalisations share."""

from __future__ import annotations

import pytest
import torch

from services.common.errors import BackendUnavailableError
from services.render.personalization import check_device, forward_pass


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_search_bfloat16_where_supported(flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches compute in bfloat16 only where the processor has instructions for bfloat16."""
    monkeypatch.setattr("services.render.personalization.cpu_flags", lambda: frozenset(flags))
    with forward_pass("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_refused() -> None:
    """A search on a GPU that is not there is refused, with what is missing and what helps."""
    with pytest.raises(BackendUnavailableError, match=r"DUBSTAGE_PERSONALIZE_DEVICE=cuda: PyTorch .*_DEVICE=cpu"):
        check_device("cuda")
