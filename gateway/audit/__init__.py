"""The audit log: who did what with whose face, in one chain of entries that all gateways of a database append to."""

from __future__ import annotations

from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog

__all__ = ["AuditEvent", "AuditLog", "EventKind"]
