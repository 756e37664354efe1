"""Tables of actors, of the blobs that came from their footage, of jobs, of erasures and of withdrawn consents."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Dialect, ForeignKey, Index, String, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_NAME: Final = String(63).with_variant(String(63, collation="C"), "postgresql")
"""Type of an actor's id. Ids are ordered by their characters, whatever the server's language is."""

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
    """Name of the gateway's operation, `actors/ID` for an enrolment of the command line, empty for a dub of the command line."""


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
    receipt: Mapped[str | None]
    """The signed receipt, JSON."""
    error: Mapped[bytes | None]
    """A serialised google.rpc.Status."""
