"""Entries of the audit log about the settings of protection: watermark, required consent records, signing key."""

from __future__ import annotations

from typing import Any, Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.audit.entries import AuditEvent, EventKind, entry_from
from gateway.audit.log import AuditLog, AuditRow
from gateway.database.session import Database
from gateway.settings import GatewaySettings
from gateway.signatures import KEY_SETTING, signing_key

SETTINGS_WORK: Final = "settings"
"""Name under which entries about settings are found again."""
REMEDY: Final = (
    f"if the key was not replaced on purpose, several gateways of one database sign with different keys: give all of them the same "
    f"{KEY_SETTING}, or one data folder"
)

_log = structlog.stdlib.get_logger("dubstage.audit")


def record_settings(database: Database, settings: GatewaySettings) -> None:
    """Write an entry if the watermark, the consent requirement or the signing key is another than the log says.

    The gateway's log also reports another signing key than at the last start: the key was replaced, or two gateways of one database
    have different keys.

    Args:
        database: database of the actors.
        settings: settings that a gateway starts with.

    Raises:
        DubstageError: the database or the signing key cannot be used.
    """
    now: dict[str, str | int | bool] = {
        "require_consent": str(settings.require_consent),
        "watermark": settings.watermark,
        "watermark_public": settings.watermark and settings.watermark_public,
        "signing_key": signing_key(settings.data_dir, settings.signing_key_file).id,
    }
    with database.writing() as session:
        last = _last(session)
        before = _key_of(last)
        if before not in ("", now["signing_key"]):
            _log.warning("another_signing_key", before=before, now=now["signing_key"], remedy=REMEDY)
        if last is None or last["details"] != now:
            AuditLog(database).append(session, AuditEvent(event=EventKind.SETTINGS, work=SETTINGS_WORK, details=now))


def recorded_signing_key(database: Database) -> str:
    """Return the id of the signing key of the gateway that started last; empty: no gateway has started yet."""
    with database.reading() as session:
        return _key_of(_last(session))


def _last(session: Session) -> dict[str, Any] | None:
    row = session.scalar(select(AuditRow).where(AuditRow.work == SETTINGS_WORK).order_by(AuditRow.sequence.desc()).limit(1))
    return entry_from(row.line) if row is not None else None


def _key_of(entry: dict[str, Any] | None) -> str:
    return str(entry["details"].get("signing_key", "")) if entry is not None else ""
