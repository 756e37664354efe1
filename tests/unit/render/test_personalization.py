"""Tests of the parts that the searches of personalisations share."""

from __future__ import annotations

import pytest
import torch

from services.render.personalization import forward_pass


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_searches_compute_in_bfloat16_only_where_the_processor_has_instructions_for_bfloat16(
    flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.render.personalization.cpu_flags", lambda: frozenset(flags))
    with forward_pass():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
