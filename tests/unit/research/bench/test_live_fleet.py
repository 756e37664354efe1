"""Simulated fleets of gateways: the real admission shares live streams out, and the plan has gateways enough."""

from __future__ import annotations

from research.bench.live_fleet import planned_gateways, simulate

COST_S = 0.0098


def test_planned_gateways_take_all_streams() -> None:
    planned, cost_s = planned_gateways(20)
    fleet = simulate(20, planned, planned, cost_s=cost_s, seconds=90.0)
    assert fleet.taken > 0.9
    assert fleet.in_time > 0.99
    assert fleet.busy < 0.75


def test_few_gateways_refuse_streams() -> None:
    """Whoever is refused waits. Streams that run keep their frames."""
    fleet = simulate(20, 1, 5, cost_s=COST_S, seconds=90.0)
    assert fleet.refused
    assert fleet.waited_most_s > 1.0
    assert fleet.in_time > 0.95


def test_simulation_is_repeatable() -> None:
    first, second = (simulate(6, 2, 2, cost_s=COST_S, seconds=70.0, seed=3) for _ in range(2))
    assert first == second
