"""The gate of a tenant, from the settings and the tenant's database."""

from __future__ import annotations

from functools import partial

from gateway.api.operation_messages import ACTOR, DUB
from gateway.database.database import Database
from gateway.operations.unfinished import unfinished_in
from gateway.settings import GatewaySettings
from gateway.tenants.gate import TenantGate
from gateway.tenants.limits import Limits
from gateway.tenants.storage import stored_bytes


def gate_of(settings: GatewaySettings, database: Database) -> TenantGate:
    """Return the gate of a tenant.

    Args:
        settings: settings of the process, with the places of the tenant.
        database: database of the tenant.

    Raises:
        InvalidRequest: the file of limits cannot be used.
    """
    return TenantGate(
        settings.tenant,
        Limits(settings.tenant_limits_file),
        stored_bytes=partial(stored_bytes, database),
        unfinished=partial(unfinished_in, database, (DUB, ACTOR)),
    )
