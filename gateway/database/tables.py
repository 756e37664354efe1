"""Tables of actors, of the blobs that came from their footage, of jobs, of erasures, of withdrawn consents, and of batches."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Dialect, Double, ForeignKey, ForeignKeyConstraint, Index, String, Text, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_NAME: Final = String(63).with_variant(String(63, collation="C"), "postgresql")
"""Type of the id of an actor, a batch or a shot. Ids are ordered by their characters, whatever the server's language is."""

DAMAGED_JSON: Final = "damaged"
"""Value of a JSON column whose stored text is no JSON. No sound row holds a bare text."""


class TolerantJson(TypeDecorator[Any]):
    """JSON column that gives DAMAGED_JSON for a text that is no JSON, so that one damaged row does not hide the other rows."""

    impl = JSON
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return the function that decodes a stored value."""
        decode = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            try:
                return decode(value) if decode is not None else value
            except (ValueError, TypeError, RecursionError):
                return DAMAGED_JSON

        return process


class WrongTypeError(Exception):
    """A row holds bytes or a number in a column of texts. SQLite stores such values without complaint."""


class Base(DeclarativeBase):
    """Base of all tables."""


@event.listens_for(Base, "load", propagate=True)
def _check_texts(row: Base, _context: object) -> None:
    for name, column in row.__mapper__.columns.items():
        value = getattr(row, name)
        if isinstance(column.type, String) and value is not None and not isinstance(value, str):
            raise WrongTypeError(f"{row.__tablename__}.{name} of a row holds {type(value).__name__}, not text")


class InstallationRow(Base):
    """The one row that tells these tables from those of every other installation and tenant."""

    __tablename__ = "installation"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)


class TenantRow(Base):
    """A tenant beside the default tenant, that a gateway has served. Only the default tenant's database has such rows."""

    __tablename__ = "tenants"

    tenant: Mapped[str] = mapped_column(String(31), primary_key=True)
    served_since: Mapped[str] = mapped_column(String(32))


class ActorRow(Base):
    """One enrolled person."""

    __tablename__ = "actors"

    actor_id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    method: Mapped[str] = mapped_column(String(32))
    consent: Mapped[Any] = mapped_column(TolerantJson, nullable=True)
    footage_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[str] = mapped_column(String(32))
    enrolment_sha256: Mapped[str] = mapped_column(String(64), index=True)
    consent_sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Digest of the consent record; empty: there is none."""


class EnrolmentRow(Base):
    """Figures of an actor's enrolment, so that a list of actors reads no blob."""

    __tablename__ = "enrolments"

    actor_id: Mapped[str] = mapped_column(_NAME, ForeignKey("actors.actor_id"), primary_key=True)
    num_frames: Mapped[int] = mapped_column(BigInteger)
    lag_frames: Mapped[int | None]


class LineageRow(Base):
    """One blob that came from an actor's footage. A blob that several actors share has one row per actor."""

    __tablename__ = "lineage"
    # The sum of all sizes reads the index alone, a blob after the other.
    __table_args__ = (Index("ix_lineage_sha256_size_bytes", "sha256", "size_bytes"),)

    actor_id: Mapped[str] = mapped_column(_NAME, ForeignKey("actors.actor_id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    uri: Mapped[str] = mapped_column(String(4096))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobFolderRow(Base):
    """A job that has begun and has not ended. As long as the row exists, the job may count blobs."""

    __tablename__ = "job_folders"

    folder: Mapped[str] = mapped_column(String(4096), primary_key=True)
    belongs_to: Mapped[str] = mapped_column(String(80), index=True)
    """Name of the gateway's operation, `of_actor` for an enrolment of the command line or after the operation was deleted,
    `footage/SHA256` for a kept analysis; empty for a dub of the command line."""


def of_actor(actor_id: str) -> str:
    """Return what the job of an enrolment that no operation names belongs to. An erasure of the person finds the job by this."""
    return f"actors/{actor_id}"


class JobBlobRow(Base):
    """A blob that a job made, and may share with other jobs and actors. The blob is counted until the job ends."""

    __tablename__ = "job_blobs"

    folder: Mapped[str] = mapped_column(String(4096), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    uri: Mapped[str] = mapped_column(String(4096))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobRow(Base):
    """A job folder that holds work made with an actor. An erasure of the actor deletes the folder."""

    __tablename__ = "actor_jobs"

    actor_id: Mapped[str] = mapped_column(_NAME, ForeignKey("actors.actor_id"), primary_key=True)
    folder: Mapped[str] = mapped_column(String(4096), primary_key=True, index=True)


class WithdrawalRow(Base):
    """A consent record that was withdrawn. The row holds nothing of the record, so that it outlives an erasure of the person."""

    __tablename__ = "consent_withdrawals"

    record_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    withdrawn_at: Mapped[str] = mapped_column(String(32))


class ErasureRow(Base):
    """An erasure that was asked for.

    Until the row has a receipt or an error, the erasure is open, and no work with the actor begins.
    """

    __tablename__ = "erasures"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    actor_id: Mapped[str] = mapped_column(_NAME, index=True)
    asked_at: Mapped[str] = mapped_column(String(32))
    """Time when the erasure was asked for; with a receipt or an error, the time of this answer."""
    receipt: Mapped[str | None]
    """The signed receipt, JSON."""
    error: Mapped[bytes | None]
    """A serialised google.rpc.Status."""


class BatchRow(Base):
    """A batch: the shots of one manifest."""

    __tablename__ = "batches"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    created_at: Mapped[str] = mapped_column(String(32))
    engine: Mapped[str] = mapped_column(String(16))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    num_shots: Mapped[int]
    details: Mapped[Any] = mapped_column(TolerantJson)
    """Facts of the engine's own, such as the rows of its Jobs."""
    holder: Mapped[str] = mapped_column(String(80), default="")
    """Process that gives the shots of the batch to workers; empty: none."""
    held_until: Mapped[float] = mapped_column(Double, default=0.0)
    """End of the holder's lease by the clock of the database, Unix time in seconds."""


class BatchShotRow(Base):
    """A shot of a batch: the dub that is asked for, the record, and what lists and progress need of the record."""

    __tablename__ = "batch_shots"
    # The progress of a batch reads the first index alone. The others serve the orders of lists, and looks for a file. A hash index
    # of PostgreSQL takes texts of any length.
    __table_args__ = (
        Index("ix_batch_shots_progress", "batch", "state", "look", "review", "frames", "begun_s", "ended_s"),
        Index("ix_batch_shots_id", "batch", "shot_id", unique=True),
        Index("ix_batch_shots_risk", "batch", "risk", "number"),
        Index("ix_batch_shots_footage", "footage", postgresql_using="hash"),
        Index("ix_batch_shots_output", "output", postgresql_using="hash"),
    )

    batch: Mapped[str] = mapped_column(_NAME, ForeignKey("batches.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Row of the manifest, from 0."""
    shot_id: Mapped[str] = mapped_column(_NAME)
    footage: Mapped[str] = mapped_column(String(4096))
    output: Mapped[str] = mapped_column(String(4096))
    state: Mapped[str] = mapped_column(String(16))
    cancelled: Mapped[bool]
    """Whether a person has cancelled the shot. A worker that has the shot sees this and stops."""
    look: Mapped[bool]
    frames: Mapped[int]
    begun_s: Mapped[float] = mapped_column(Double)
    ended_s: Mapped[float] = mapped_column(Double)
    """Begin and end of the last attempt, Unix time in seconds; 0: not known."""
    risk: Mapped[int]
    """Risk in ten thousandths."""
    review: Mapped[str] = mapped_column(String(16))
    """State of the decision about the present video."""
    assignee: Mapped[str] = mapped_column(String(200))
    """Person whom that decision names."""
    holder: Mapped[str] = mapped_column(String(80), default="")
    """Worker that has the shot; empty: none."""
    held_until: Mapped[float] = mapped_column(Double, default=0.0)
    """End of the holder's lease by the clock of the database, Unix time in seconds."""
    dub: Mapped[bytes]
    """A serialised DubSpec, as it was submitted."""
    quality: Mapped[str] = mapped_column(Text)
    """Thresholds of the quality gate, JSON."""
    words: Mapped[str | None] = mapped_column(Text)
    """The Words that a command speaks, JSON; NULL: none."""
    options: Mapped[str | None] = mapped_column(Text)
    """Options that were changed since the batch was submitted, ShotOptions as JSON; NULL: none."""
    record: Mapped[str | None] = mapped_column(Text)
    """The ShotRecord, JSON; NULL: no attempt has begun."""
    earlier: Mapped[str | None] = mapped_column(Text)
    """The video that the last retry has replaced, EarlierVideo as JSON; NULL: none is kept."""


def _of_shot() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["batch", "number"], ["batch_shots.batch", "batch_shots.number"], ondelete="CASCADE")


class BatchActorRow(Base):
    """An enrolled actor whom a shot of a batch names. An erasure of the actor finds the shot by this row, and keeps the row."""

    __tablename__ = "batch_actors"
    __table_args__ = (_of_shot(),)

    batch: Mapped[str] = mapped_column(_NAME, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(_NAME, primary_key=True, index=True)


class BatchPictureRow(Base):
    """Picture of a shot's video."""

    __tablename__ = "batch_pictures"
    __table_args__ = (_of_shot(),)

    batch: Mapped[str] = mapped_column(_NAME, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    jpeg: Mapped[bytes]


class BatchDecisionRow(Base):
    """Decision of a person about a shot. Decisions are added and never changed; the one with the largest number counts."""

    __tablename__ = "batch_decisions"
    __table_args__ = (_of_shot(),)

    batch: Mapped[str] = mapped_column(_NAME, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    decision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Number of the decision about the shot, from 1."""
    document: Mapped[str] = mapped_column(Text)
    """The Decision, JSON."""
