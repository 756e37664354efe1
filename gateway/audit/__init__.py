"""The audit log: who did what with whose face, in one chain of entries that all gateways of a database append to."""

from __future__ import annotations

from gateway.audit.entry import Event, Happening
from gateway.audit.log import AuditLog

__all__ = ["AuditLog", "Event", "Happening"]
