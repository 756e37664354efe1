"""Columns by which a request is known that comes again, and the contract that began an operation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns. Operations of earlier versions have no contract: the gateway converts their messages when it opens."""
    op.add_column("operations", sa.Column("contract", sa.String(16), nullable=False, server_default=""))
    op.add_column("webhooks", sa.Column("contract", sa.String(16), nullable=False, server_default="v1alpha1"))
    for table in ("operations", "webhooks"):
        op.add_column(table, sa.Column("request_id", sa.String(36), nullable=True))
        op.add_column(table, sa.Column("request_sha256", sa.String(64), nullable=True))
        op.create_index(f"ix_{table}_request_id", table, ["request_id"], unique=True)
