"""Limits of each tenant, from a file that an operator changes while gateways run."""

from __future__ import annotations

import json
import os
import threading
import tomllib
from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.common.errors import InvalidRequestError
from services.common.server.call_context import is_tenant

SETTING: Final = "DUBSTAGE_TENANT_LIMITS_FILE"
_Limit = Annotated[int | None, Field(ge=0, le=1 << 60)]

_log = structlog.stdlib.get_logger("dubstage.tenants")


class TenantLimits(BaseModel):
    """Limits of one tenant. None: no limit.

    Attributes:
        concurrent_dubs: dubs and enrolments that run or wait in all gateways, and shots of batches that run in a gateway or wait
            only for a free slot of the gateway (DUBSTAGE_MAX_BATCH_SHOTS).
        live_streams: live streams at once in a gateway.
        frames_per_minute: frames of videos and live streams that a gateway makes within a minute.
        storage_bytes: size of the artefacts that the tenant's actors and jobs use, bytes.
        upload_bytes: size of the tenant's uploads, bytes. A gateway counts the open signed URLs of its own alone. None: as
            DUBSTAGE_UPLOADS_MAX_BYTES says.
        upload_files: number of the tenant's uploads, counted as `upload_bytes`. None: as DUBSTAGE_UPLOADS_MAX_FILES says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrent_dubs: _Limit = None
    live_streams: _Limit = None
    frames_per_minute: _Limit = None
    storage_bytes: _Limit = None
    upload_bytes: _Limit = None
    upload_files: _Limit = None


class LimitsFile(BaseModel):
    """Content of a file of limits.

    Attributes:
        every: limits of each tenant, of the default tenant too.
        tenants: limits by name of the tenant, which win over `every`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: TenantLimits = TenantLimits()
    tenants: dict[str, TenantLimits] = {}

    @field_validator("tenants")
    @classmethod
    def _names(cls, tenants: dict[str, TenantLimits]) -> dict[str, TenantLimits]:
        for name in tenants:
            if not is_tenant(name):
                raise ValueError(f"{name[:80]!r} is no name of a tenant: 1 to 31 lower-case letters, digits and inner hyphens")
        return tenants

    def of(self, tenant: str) -> TenantLimits:
        """Return the limits of a tenant."""
        own = self.tenants.get(tenant, TenantLimits())
        return self.every.model_copy(update=own.model_dump(exclude_unset=True))


def read_limits(file: Path) -> LimitsFile:
    """Return the limits of a file: TOML if the name ends with .toml, otherwise JSON.

    Raises:
        InvalidRequestError: the file cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return LimitsFile.model_validate(tomllib.loads(text) if file.suffix == ".toml" else json.loads(text))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False))
        raise InvalidRequestError(f"the file of limits {file} is wrong: {wrong}", field=SETTING) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"cannot read the file of limits {file}: {error}", field=SETTING) from error


class Limits:
    """The limits of tenants. A changed file counts from the next question on, without a restart.

    While a changed file cannot be used, the limits that were read before hold.

    Args:
        file: file of limits; None: no tenant has limits.

    Raises:
        InvalidRequestError: as `read_limits`.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        # Before the file is read: a file that changes meanwhile is read again.
        self._version = () if file is None else _version(file)
        self._read = LimitsFile() if file is None else read_limits(file)
        self._lock = threading.Lock()

    def of(self, tenant: str) -> TenantLimits:
        """Return the limits of a tenant."""
        if self._file is not None:
            with self._lock:
                self._look(self._file)
        return self._read.of(tenant)

    def _look(self, file: Path) -> None:
        version = _version(file)
        if version == self._version:
            return
        self._version = version
        try:
            self._read = read_limits(file)
        except InvalidRequestError as problem:
            _log.error("tenant_limits_unusable", message=problem.message, effect="the limits that were read before hold")


def _version(file: Path) -> tuple[int, ...]:
    try:
        stat = os.stat(file)
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)
