"""Words of the shots of batches that a command speaks, in place of a sound file."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column. Rows of the version before have no words."""
    op.add_column("batch_shots", Column("words", Text))
