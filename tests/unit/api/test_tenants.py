from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from gateway.api import tenants
from gateway.api.tenants import Tenants


async def test_looks_go_on_after_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a statement, which is no error of dubstage, ends one look for tenants alone."""
    looks, again = 0, asyncio.Event()

    async def look(self: Tenants) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise IntegrityError("INSERT", {}, ValueError("the key exists"))
        again.set()

    monkeypatch.setattr(Tenants, "_look", look)
    monkeypatch.setattr(tenants, "POLL_S", 0.0)
    looking = asyncio.create_task(Tenants.__new__(Tenants)._look_for_ever())
    async with asyncio.timeout(20):
        await again.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
