"""Metrics of the healing of Triton's models. tests/contract/render/test_triton_healing.py heals models of a real server."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from services.render.backends.triton_healing import TritonMonitor


@pytest.mark.parametrize("outcome", ["healed", "failed"])
def test_heals_are_counted_from_0_so_that_the_first_is_an_increase(outcome: str) -> None:
    registry, monitor = CollectorRegistry(), TritonMonitor()
    for collector in monitor.collectors:
        registry.register(collector)

    def counted() -> float | None:
        return registry.get_sample_value("dubstage_triton_heals_total", {"outcome": outcome})

    assert counted() == 0.0
    monitor.heals.labels(outcome).inc()
    assert counted() == 1.0
