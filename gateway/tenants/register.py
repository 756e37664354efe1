"""The tenants that the gateways of an installation have served, with their databases and their part of the artefact store.

Each gateway goes on with the operations of these tenants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import exists, func, inspect, select

from gateway.database.session import SCHEMA_PREFIX, Database
from gateway.database.tables import JobBlobRow, LineageRow, TenantRow
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from gateway.times import now
from services.common.server.call_context import DEFAULT_TENANT, is_tenant
from services.common.server.settings import DATABASE_FILE


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
    with database.writing() as session:
        database.one_by_one(session)
        if session.get(TenantRow, tenant) is None:
            session.add(TenantRow(tenant=tenant, served_since=now()))


def announce_tenant(settings: GatewaySettings) -> None:
    """Let the gateways of a shared database serve the tenant of the settings, which none of them may have served.

    Every gateway serves the default tenant. With SQLite, a gateway holds the file of a tenant only while it serves the tenant.

    Args:
        settings: settings of the process, with the locations of the tenant.

    Raises:
        StorageRefusedError, BackendUnavailableError: the database cannot be used.
    """
    if settings.tenant != DEFAULT_TENANT and settings.database_may_be_shared:
        with closing(Database(settings.database_url, settings.data_dir, connections=1)) as default:
            remember_tenant(default, settings.tenant)


def stored_bytes(database: Database) -> int:
    """Return the size of the artefacts that a tenant's actors and jobs count, bytes. A shared artefact counts once.

    Args:
        database: database of the tenant.
    """
    # In the order of an index: a database that sorts five million digests takes minutes.
    of_actors = select(func.min(LineageRow.size_bytes).label("size")).group_by(LineageRow.sha256)
    counted = exists().where(LineageRow.sha256 == JobBlobRow.sha256)
    of_jobs = select(func.min(JobBlobRow.size_bytes).label("size")).where(~counted).group_by(JobBlobRow.sha256)
    with database.reading() as session:
        return sum(int(session.scalar(select(func.sum(blobs.subquery().c.size))) or 0) for blobs in (of_actors, of_jobs))


def open_all(settings: GatewaySettings) -> Iterator[Database]:
    """Open the databases of all tenants that exist, one after the other, and yield each. The default tenant's comes first.

    Args:
        settings: settings of the process, with the locations of the default tenant.

    Raises:
        InvalidRequestError, StorageRefusedError, BackendUnavailableError: as Database.
    """
    if settings.database_may_be_shared:
        with closing(Database(settings.database_url, settings.data_dir)) as default:
            yield default
            with default.domain_errors():
                schemas = inspect(default.engine).get_schema_names()
            names = (name.removeprefix(SCHEMA_PREFIX) for name in schemas if name.startswith(SCHEMA_PREFIX))
            for tenant in filter(is_tenant, names):
                yield Database(settings.database_url, settings.data_dir, tenant=tenant, beside=default)
        return
    folders = sorted((settings.data_dir / "tenants").glob(f"*/{DATABASE_FILE}"))
    for tenant in (DEFAULT_TENANT, *filter(is_tenant, (file.parent.name for file in folders))):
        own = settings_of(settings, tenant)
        if own.database_url or (own.data_dir / DATABASE_FILE).exists():
            with closing(Database(own.database_url, own.data_dir, tenant=tenant)) as database:
                yield database
