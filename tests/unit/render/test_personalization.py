"""Tests of the parts that the searches of personalisations share."""

from __future__ import annotations

import pytest
import torch

from services.render.personalization import forward_pass


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_search_bfloat16_where_supported(flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches compute in bfloat16 only where the processor has instructions for bfloat16."""
    monkeypatch.setattr("services.render.personalization.cpu_flags", lambda: frozenset(flags))
    with forward_pass():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
