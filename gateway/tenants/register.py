"""The tenants that the gateways of an installation have served, so that each gateway goes on with their operations.

How much of the artefact store a tenant uses.
"""

from __future__ import annotations

import datetime

from sqlalchemy import func, select, union

from gateway.database.session import Database
from gateway.database.tables import JobBlobRow, LineageRow, TenantRow


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


def stored_bytes(database: Database) -> int:
    """Return the size of the artefacts that a tenant's actors and jobs count, bytes. A shared artefact counts once.

    Args:
        database: database of the tenant.
    """
    blobs = union(select(LineageRow.sha256, LineageRow.size_bytes), select(JobBlobRow.sha256, JobBlobRow.size_bytes)).subquery()
    with database.reading() as session:
        return int(session.scalar(select(func.coalesce(func.sum(blobs.c.size_bytes), 0))) or 0)
