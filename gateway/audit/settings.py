"""Settings of protection that the audit log follows: the watermark of films, and which consent records are required."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from gateway.audit.entry import Event, Happening
from gateway.audit.log import AuditLog
from gateway.audit.tables import AuditRow
from gateway.database.database import Database
from gateway.settings import GatewaySettings
from gateway.signatures.canonical import plain_json

SETTINGS_WORK: Final = "settings"
"""Name under which entries about settings are found again."""


def record_settings(database: Database, settings: GatewaySettings) -> None:
    """Write an entry if the watermark or the consent requirement is another than the log says, or is switched off at first.

    Args:
        database: database of the actors.
        settings: settings that a gateway starts with.
    """
    now: dict[str, str | int | bool] = {"require_consent": str(settings.require_consent), "watermark": settings.watermark}
    with database.writing() as session:
        query = select(AuditRow.line).where(AuditRow.work == SETTINGS_WORK).order_by(AuditRow.sequence.desc()).limit(1)
        line = session.scalar(query)
        if line is None or plain_json(line.encode())["details"] != now:
            AuditLog(database).append(session, Happening(event=Event.SETTINGS, work=SETTINGS_WORK, details=now))
