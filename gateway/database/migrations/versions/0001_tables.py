"""Tables of the first version."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

_NAME = String(63).with_variant(String(63, collation="C"), "postgresql")
_ENTRY = BigInteger().with_variant(Integer, "sqlite")
_TABLES = MetaData()

Table("installation", _TABLES, Column("id", String(32), primary_key=True))
Table(
    "tenants",
    _TABLES,
    Column("tenant", String(31), primary_key=True),
    Column("served_since", String(32), nullable=False),
)
Table(
    "actors",
    _TABLES,
    Column("actor_id", _NAME, primary_key=True),
    Column("method", String(32), nullable=False),
    Column("consent", JSON),
    Column("footage_sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("enrolment_sha256", String(64), nullable=False, index=True),
    Column("consent_sha256", String(64), nullable=False, index=True),
)
Table(
    "enrolments",
    _TABLES,
    Column("actor_id", _NAME, ForeignKey("actors.actor_id"), primary_key=True),
    Column("num_frames", BigInteger, nullable=False),
    Column("lag_frames", Integer),
)
Table(
    "lineage",
    _TABLES,
    Column("actor_id", _NAME, ForeignKey("actors.actor_id"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("uri", String(4096), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Index("ix_lineage_sha256_size_bytes", "sha256", "size_bytes"),
)
Table(
    "job_folders",
    _TABLES,
    Column("folder", String(4096), primary_key=True),
    Column("belongs_to", String(80), nullable=False, index=True),
)
Table(
    "job_blobs",
    _TABLES,
    Column("folder", String(4096), primary_key=True),
    Column("sha256", String(64), primary_key=True, index=True),
    Column("uri", String(4096), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)
Table(
    "actor_jobs",
    _TABLES,
    Column("actor_id", _NAME, ForeignKey("actors.actor_id"), primary_key=True),
    Column("folder", String(4096), primary_key=True, index=True),
)
Table(
    "consent_withdrawals",
    _TABLES,
    Column("record_sha256", String(64), primary_key=True),
    Column("withdrawn_at", String(32), nullable=False),
)
Table(
    "erasures",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("actor_id", _NAME, nullable=False, index=True),
    Column("asked_at", String(32), nullable=False),
    Column("receipt", String),
    Column("error", LargeBinary),
)
Table(
    "operations",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("actor_id", String(63), nullable=False, index=True),
    Column("output", String(4096), nullable=False),
    Column("created_at", String(32), nullable=False, index=True),
    Column("request", LargeBinary, nullable=False),
    Column("done", Boolean, nullable=False, index=True),
    Column("metadata_bytes", LargeBinary, nullable=False),
    Column("response", LargeBinary),
    Column("error", LargeBinary),
    Column("request_id", String(36), index=True, unique=True),
    Column("request_sha256", String(64)),
    Column("footage_sha256", String(64), index=True),
)
Table(
    "operation_leases",
    _TABLES,
    Column("number", Integer, ForeignKey("operations.number", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("owner", String(80), nullable=False),
    Column("until", Double, nullable=False),
    Column("begun", Boolean, nullable=False),
    Column("cancel", Boolean, nullable=False),
)
Table(
    "audit_log",
    _TABLES,
    Column("sequence", _ENTRY, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("work", String(160), nullable=False, index=True),
)
Table(
    "audit_faces",
    _TABLES,
    Column("face", String(32), primary_key=True),
    Column("sequence", _ENTRY, ForeignKey("audit_log.sequence", ondelete="CASCADE"), primary_key=True, index=True),
)
Table(
    "audit_people",
    _TABLES,
    Column("actor_id", String(63), primary_key=True),
    Column("alias", String(32), nullable=False, index=True),
)
Table(
    "webhooks",
    _TABLES,
    Column("webhook_id", String(64), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("secret", String(80), nullable=False),
    Column("events", String(200), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("request_id", String(36), index=True, unique=True),
    Column("request_sha256", String(64)),
)
Table(
    "webhook_deliveries",
    _TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("webhook_id", String(64), ForeignKey("webhooks.webhook_id", ondelete="CASCADE"), nullable=False),
    Column("operation", Integer, ForeignKey("operations.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("event_id", String(80), nullable=False),
    Column("event", String(32), nullable=False),
    Column("subject", String(160), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("due", Double, nullable=False, index=True),
    Column("owner", String(80), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", String(300), nullable=False),
    Column("dead", Boolean, nullable=False),
    UniqueConstraint("webhook_id", "operation", name="uq_webhook_deliveries_event"),
)
Table(
    "batches",
    _TABLES,
    Column("name", _NAME, primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("engine", String(16), nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("num_shots", Integer, nullable=False),
    Column("details", JSON, nullable=False),
    Column("holder", String(80), nullable=False),
    Column("held_until", Double, nullable=False),
)
Table(
    "batch_shots",
    _TABLES,
    Column("batch", _NAME, ForeignKey("batches.name", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("shot_id", _NAME, nullable=False),
    Column("footage", String(4096), nullable=False),
    Column("output", String(4096), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("look", Boolean, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("begun_s", Double, nullable=False),
    Column("ended_s", Double, nullable=False),
    Column("risk", Integer, nullable=False),
    Column("review", String(16), nullable=False),
    Column("assignee", String(200), nullable=False),
    Column("holder", String(80), nullable=False),
    Column("held_until", Double, nullable=False),
    Column("dub", LargeBinary, nullable=False),
    Column("quality", Text, nullable=False),
    Column("options", Text),
    Column("words", Text),
    Column("record", Text),
    Column("earlier", Text),
    Index("ix_batch_shots_progress", "batch", "state", "look", "review", "frames", "begun_s", "ended_s"),
    Index("ix_batch_shots_id", "batch", "shot_id", unique=True),
    Index("ix_batch_shots_risk", "batch", "risk", "number"),
    Index("ix_batch_shots_footage", "footage", postgresql_using="hash"),
    Index("ix_batch_shots_output", "output", postgresql_using="hash"),
)


def _of_shot() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["batch", "number"], ["batch_shots.batch", "batch_shots.number"], ondelete="CASCADE")


Table(
    "batch_actors",
    _TABLES,
    Column("batch", _NAME, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("actor", _NAME, primary_key=True, index=True),
    _of_shot(),
)
Table(
    "batch_pictures",
    _TABLES,
    Column("batch", _NAME, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("jpeg", LargeBinary, nullable=False),
    _of_shot(),
)
Table(
    "batch_decisions",
    _TABLES,
    Column("batch", _NAME, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("decision", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    _of_shot(),
)


def upgrade() -> None:
    """Create the tables."""
    _TABLES.create_all(op.get_bind(), checkfirst=False)
