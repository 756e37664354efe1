"""The tenants that the gateways of an installation have served, so that each gateway goes on with their operations."""

from __future__ import annotations

import datetime

from sqlalchemy import select

from gateway.database.database import Database
from gateway.database.tables import TenantRow


def served_tenants(database: Database) -> list[str]:
    """Return the tenants beside the default tenant that a gateway has served, sorted.

    Args:
        database: database of the default tenant.
    """
    with database.reading() as session:
        return list(session.scalars(select(TenantRow.tenant).order_by(TenantRow.tenant)))


def remember_tenant(database: Database, tenant: str) -> None:
    """Store that a gateway serves a tenant.

    Args:
        database: database of the default tenant.
        tenant: name of the tenant.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
    with database.writing() as session:
        database.one_by_one(session)
        if session.get(TenantRow, tenant) is None:
            session.add(TenantRow(tenant=tenant, served_since=now))
