"""Batches of one size, as a GPU computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.render.backends.base import Arrays
from services.render.backends.onnxruntime import in_batches


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_batches_have_one_size(count: int) -> None:
    """Every batch has the same size, and each frame gets its own output, in order. The bytes of dubs depend on the size."""
    sizes = []

    def compute(batch: Arrays) -> dict[str, Any]:
        sizes.append(len(batch["pictures"]))
        return {"sum": batch["pictures"].sum(axis=1) + batch["actor"][:, 0]}

    pictures = np.arange(2 * count, dtype=np.uint8).reshape(count, 2)
    found = in_batches({"pictures": pictures, "actor": np.full((count, 1), 7.0, np.float32)}, compute)
    assert set(sizes) == {16}
    assert np.array_equal(found["sum"], pictures.sum(axis=1) + 7.0)
