"""Faces of the entries of the audit log, so that the entries about a person are found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column. Entries of earlier versions stay as they are: the column is NULL, and their lines are searched."""
    op.add_column("audit_log", sa.Column("face", sa.String(32), nullable=True))
    op.create_index("ix_audit_log_face_sequence", "audit_log", ["face", "sequence"])
