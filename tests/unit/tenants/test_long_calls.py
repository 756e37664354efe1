from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.tenants.long_calls import LongCalls, most_calls_of_tenant
from services.common.errors import OverloadedError
from services.common.server.call_context import acting_for


def places(long_calls: LongCalls, tenant: str, held: ExitStack) -> int:
    """Take all places that a tenant may have, and return their number."""
    taken = 0
    with acting_for(tenant):
        while long_calls.has_room():
            held.enter_context(long_calls.slot())
            taken += 1
    return taken


def test_call_shares() -> None:
    """One tenant has a quarter of the calls, and all tenants together have half."""
    long_calls = LongCalls(64)
    with ExitStack() as held:
        assert [places(long_calls, tenant, held) for tenant in ("acme", "bolt", "carl")] == [16, 16, 0]
    with ExitStack() as held:
        assert places(long_calls, "carl", held) == 16


def test_excess_call_gets_retry_time() -> None:
    """A call over the bound is refused with the true numbers and a time to retry."""
    long_calls = LongCalls(8)
    with ExitStack() as held:
        places(long_calls, "acme", held)
        with acting_for("acme"), pytest.raises(OverloadedError, match="takes 2 calls of one tenant") as caught:
            held.enter_context(long_calls.slot())
        assert "4 of all tenants" in caught.value.message
        assert caught.value.retry_after_s > 0
        with acting_for("bolt"):
            assert long_calls.has_room()


def test_a_call_that_fails_gives_its_place_back() -> None:
    long_calls = LongCalls(1)
    with pytest.raises(ValueError, match="ended"), long_calls.slot():
        raise ValueError("ended")
    assert long_calls.has_room()


@pytest.mark.parametrize(("calls", "most"), [(1, 1), (2, 1), (8, 6), (64, 48)])
def test_tenant_leaves_quarter_to_others(calls: int, most: int) -> None:
    """One tenant leaves a quarter of the calls to others."""
    assert most_calls_of_tenant(calls) == most
