"""The cost of an entry of the audit log is measured on a log as the gateway writes it."""

from __future__ import annotations

from pathlib import Path

from gateway.audit.log import AuditLog
from gateway.database.session import Database
from research.bench.audit_log import measure


def test_audit_log_row_is_sound(tmp_path: Path) -> None:
    """The measured log is sound and an entry takes more than its line."""
    database = Database("", tmp_path)
    try:
        cost = measure(database, 40)
        assert AuditLog(database).verify().sequence == 81
        ended = AuditLog(database).newest(1, event="dub.ended")[0]
    finally:
        database.close()
    assert ended["details"].keys() == {"watermark", "watermark_payload"}
    assert ended["face"]
    assert cost.exported_bytes < cost.stored_bytes < 5 * cost.exported_bytes
