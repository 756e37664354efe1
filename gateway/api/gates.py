"""The gate of a tenant, from the limits and the tenant's database."""

from __future__ import annotations

from functools import partial

from gateway.api.operation_messages import ACTOR, DUB
from gateway.database.database import Database
from gateway.operations.unfinished import unfinished_in
from gateway.tenants.gate import TenantGate
from gateway.tenants.limits import Limits
from gateway.tenants.storage import stored_bytes


def gate_of(limits: Limits, database: Database) -> TenantGate:
    """Return the gate of a tenant.

    Args:
        limits: limits of all tenants.
        database: database of the tenant.
    """
    return TenantGate(
        database.tenant,
        limits,
        stored_bytes=partial(stored_bytes, database),
        unfinished=partial(unfinished_in, database, (DUB, ACTOR)),
    )
