"""How much of the artefact store a tenant uses."""

from __future__ import annotations

from sqlalchemy import func, select, union

from gateway.database.database import Database
from gateway.database.tables import JobBlobRow, LineageRow


def stored_bytes(database: Database) -> int:
    """Return the size of the artefacts that a tenant's actors and jobs count, bytes. A shared artefact counts once.

    Args:
        database: database of the tenant.
    """
    blobs = union(select(LineageRow.sha256, LineageRow.size_bytes), select(JobBlobRow.sha256, JobBlobRow.size_bytes)).subquery()
    with database.reading() as session:
        return int(session.scalar(select(func.coalesce(func.sum(blobs.c.size_bytes), 0))) or 0)
