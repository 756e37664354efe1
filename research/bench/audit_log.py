"""`python -m research.bench.audit_log`: what an entry of the audit log takes in the database, in an export, and in time.

Each dub leaves the two entries of a gateway's CreateDub, in one transaction each, as the gateway writes them: an actor, a consent
record, a method, the digest of the video and its watermark. `--database-url` measures a PostgreSQL in place of a SQLite file. Give
a database that holds nothing else: the entries stay in it.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.audit.work import watermark_details
from gateway.database.session import Database
from gateway.provenance.claim import VideoWatermark
from services.common.server.call_context import acting_for, fingerprint_of

ACTOR = "bench"


@dataclass(frozen=True, slots=True)
class EntryCost:
    """Mean cost of one entry.

    Attributes:
        stored_bytes: in the database, with its indices.
        exported_bytes: in an export.
        median_ms: milliseconds to write it, in the median.
    """

    stored_bytes: float
    exported_bytes: float
    median_ms: float


def write_dubs(log: AuditLog, dubs: int) -> list[float]:
    """Write the entries of dubs, and return the seconds that each entry took."""
    log.record(AuditEvent(event=EventKind.ENROLMENT_BEGUN, work=f"operations/{secrets.token_hex(16)}", actor_id=ACTOR))
    seconds = []
    for number in range(dubs):
        work, digest = f"operations/{secrets.token_hex(16)}", hashlib.sha256(str(number).encode()).hexdigest()
        begun = AuditEvent(event=EventKind.DUB_BEGUN, work=work, actor_id=ACTOR, consents=(digest,), details={"method": "ugc"})
        details = watermark_details(VideoWatermark(on=True, payload=digest[:9]))
        ended = AuditEvent(event=EventKind.DUB_ENDED, work=work, outputs=(digest,), details=details)
        for happening, continues in ((begun, ""), (ended, work)):
            start = time.perf_counter()
            log.record(happening, continues=continues)
            seconds.append(time.perf_counter() - start)
    return seconds


def stored_bytes(database: Database) -> int:
    """Return the size of the log with its indices; of SQLite, of all pages that are in use."""
    with database.reading() as session:
        if database.shared:
            return int(session.scalar(text("SELECT pg_total_relation_size('audit_log')")) or 0)
        pages, free, size = (session.scalar(text(f"PRAGMA {name}")) or 0 for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def measure(database: Database, dubs: int) -> EntryCost:
    """Write the entries of dubs to a database, and return what an entry took."""
    log = AuditLog(database)
    before = stored_bytes(database)
    with acting_for("studio", fingerprint_of("bench", b"key of the bench")):
        seconds = write_dubs(log, dubs)
    grown = stored_bytes(database) - before
    lines = [len(row.line) + 1 for row in log.lines()]
    return EntryCost(grown / len(seconds), statistics.fmean(lines), 1e3 * statistics.median(seconds))


def main() -> None:
    """Measure one database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dubs", type=int, default=5000, help="Dubs, of two entries each.")
    parser.add_argument("--database-url", default="", help="URL of a PostgreSQL. Default: a temporary SQLite file.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(arguments.database_url, Path(folder))
        try:
            cost = measure(database, arguments.dubs)
        finally:
            database.close()
    kind = "PostgreSQL" if arguments.database_url else "SQLite"
    print(
        f"{kind}, {2 * arguments.dubs} entries: {cost.stored_bytes:.0f} bytes an entry in the database, "
        f"{cost.exported_bytes:.0f} in an export, {cost.median_ms:.2f} ms to write one (median)"
    )


if __name__ == "__main__":
    main()
