"""Who calls: the tenant whose token the caller presented.

A tenant is a customer of one installation. This module needs no gRPC.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from services.common.errors import Unauthenticated

DEFAULT_TENANT: Final = "default"
"""Tenant of tokens that name no tenant, of callers where no token is asked for, and of everything that has no owner."""

TENANT_KEY: Final = "dubstage-tenant"
"""Metadata entry in which a gateway names to a stage the tenant that it works for."""

_TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        tenant: name of the tenant.
        fingerprint: what `fingerprint_of` returned for the bearer token; empty: no token was asked for.
    """

    tenant: str = DEFAULT_TENANT
    fingerprint: str = ""


_NOBODY: Final = Caller()
_current: ContextVar[Caller] = ContextVar("caller", default=_NOBODY)


def is_tenant(name: str) -> bool:
    """Return whether a text can be the name of a tenant: 1 to 31 lower-case letters, digits and inner hyphens."""
    return _TENANT.fullmatch(name) is not None


def fingerprint_of(token: str, key: bytes) -> str:
    """Return the fingerprint of a token: 16 hexadecimal digits that tell tokens apart in a log.

    The digits are the first of the HMAC-SHA-256 of the token. Without the key, the fingerprint does not show whether a guess of the
    token is right.

    Args:
        token: the bearer token.
        key: secret of the installation.
    """
    return hmac.digest(key, token.encode(), "sha256").hex()[:16]


def current_caller() -> Caller:
    """Return who calls. Outside of calls, and for work that belongs to nobody: the default tenant without a token."""
    return _current.get()


def set_current_caller(caller: Caller) -> None:
    """Set who calls, for the current task or thread and for what they begin."""
    _current.set(caller)


def tenant_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata entry that names the present tenant to a stage; no entry: the default tenant."""
    tenant = _current.get().tenant
    return () if tenant == DEFAULT_TENANT else ((TENANT_KEY, tenant),)


def named_by(caller: Caller, tenant: str) -> Caller:
    """Return for whom a stage works: for the tenant that a trusted caller names, otherwise for the caller.

    Callers of the default tenant are trusted: a gateway is one.

    Args:
        caller: whose token the call has.
        tenant: value of the call's TENANT_KEY; empty: the call names no tenant.

    Raises:
        Unauthenticated: the value is no name of a tenant, or the caller belongs to another tenant.
    """
    if not tenant or tenant == caller.tenant:
        return caller
    if caller.tenant != DEFAULT_TENANT or not is_tenant(tenant):
        raise Unauthenticated(f"{TENANT_KEY}: this token does not speak for that tenant", field=TENANT_KEY)
    return replace(caller, tenant=tenant)


@contextmanager
def acting_for(tenant: str, fingerprint: str = "") -> Iterator[None]:
    """Do the work of the context for a tenant, as if a token of this fingerprint had called."""
    before = _current.set(Caller(tenant, fingerprint))
    try:
        yield
    finally:
        _current.reset(before)
