"""Digests of consent records, so that a withdrawal finds its actors by an index, and indices for erasures and sums of sizes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. The next withdrawal fills in the digests of the actors that are enrolled already."""
    op.add_column("actors", sa.Column("consent_sha256", sa.String(64), nullable=True))
    for column in ("consent_sha256", "enrolment_sha256"):
        op.create_index(f"ix_actors_{column}", "actors", [column])
    op.drop_index("ix_lineage_sha256", "lineage")
    op.create_index("ix_lineage_sha256_size_bytes", "lineage", ["sha256", "size_bytes"])
