"""Tables of webhooks and of the events on their way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.String(64), primary_key=True),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("secret", sa.String(80), nullable=False),
        sa.Column("events", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("webhook_id", sa.String(64), sa.ForeignKey("webhooks.webhook_id", ondelete="CASCADE"), nullable=False),
        sa.Column("operation", sa.Integer, sa.ForeignKey("operations.number", ondelete="CASCADE"), nullable=False),
        sa.Column("event_id", sa.String(80), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(160), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.String(300), nullable=False),
        sa.Column("dead", sa.Boolean, nullable=False),
        sa.UniqueConstraint("webhook_id", "operation", name="uq_webhook_deliveries_event"),
    )
    op.create_index("ix_webhook_deliveries_operation", "webhook_deliveries", ["operation"])
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["due"])
