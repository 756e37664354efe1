"""Digest of the footage of operations, by which an erasure finds lists of faces."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, which is NULL in all rows, and its index."""
    op.add_column("operations", Column("footage_sha256", String(64)))
    op.create_index("ix_operations_footage_sha256", "operations", ["footage_sha256"])
