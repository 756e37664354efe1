"""The locations of a tenant: database, data folder, artefacts and media that no other tenant reaches.

The default tenant has the locations that the settings name. Every other tenant has locations of its own below or beside them. So
code that works in the locations of one tenant cannot find what belongs to another.
"""

from __future__ import annotations

from gateway.settings import TENANTS_FOLDER, GatewaySettings
from services.common.server.call_context import DEFAULT_TENANT
from services.common.store.artefacts import tenants_store


def settings_of(settings: GatewaySettings, tenant: str) -> GatewaySettings:
    """Return the settings with the locations of a tenant.

    Args:
        settings: settings of the process, with the locations of the default tenant.
        tenant: name of the tenant.
    """
    if tenant == DEFAULT_TENANT:
        return settings
    below = f"{TENANTS_FOLDER}/{tenant}"
    return settings.model_copy(
        update={
            "tenant": tenant,
            "data_dir": settings.data_dir / "tenants" / tenant,
            # PostgreSQL has a schema for each tenant. A file of SQLite belongs to one tenant.
            "database_url": settings.database_url if settings.database_may_be_shared else "",
            "artefacts_url": tenants_store(settings.artefacts_url, tenant),
            "media_dir": settings.media_dir and settings.media_dir / below,
            "media_url": settings.media_url and f"{settings.media_url}/{below}",
        }
    )
