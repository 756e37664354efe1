"""The bench of a GPU, run on the processor."""

import pytest

from research.bench import gpu


def test_parity_of_processor_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor draws what it draws, alone and in a batch, and the page has a row for each network."""
    monkeypatch.setattr(gpu, "_PARITY_FRAMES", 2)
    rows = gpu.measure_parity("cpu")
    assert all(row.mean == row.largest == 0.0 and row.alone and row.holds for row in rows)
    page = gpu.page(
        gpu.Report(machine=gpu.describe_machine(), device="cpu", rows={"parity": rows}, failures={"triton": "no server"})
    )
    assert all(f"| {row.model} | 0 | 0 |" in page for row in rows)
    assert "**triton failed**: no server" in page
