# ruff: noqa: N818 - the names say what is wrong, as in errors.py
"""The errors of tenants' limits: the branch TenantLimitReached of the tree in errors.py."""

from __future__ import annotations

from services.common.errors import TransientError


class TenantLimitReached(TransientError):
    """The tenant uses as much as its limits allow. Other tenants are served."""

    code = "RESOURCE_EXHAUSTED"


class TenantDubsReached(TenantLimitReached):
    """As many dubs and enrolments of the tenant run or wait as may."""

    reason = "TENANT_CONCURRENT_DUBS"


class TenantStreamsReached(TenantLimitReached):
    """As many live streams of the tenant run as may."""

    reason = "TENANT_LIVE_STREAMS"


class TenantFramesReached(TenantLimitReached):
    """The tenant's films and streams of the last minute have as many frames as they may have."""

    reason = "TENANT_FRAMES_PER_MINUTE"


class TenantStorageReached(TenantLimitReached):
    """The tenant's artefacts take as many bytes as they may."""

    reason = "TENANT_STORAGE_BYTES"
