"""Tables of actors and of the lineage of their artefacts."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Of all tables."""


class ActorRow(Base):
    """One enrolled person."""

    __tablename__ = "actors"

    actor_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    method: Mapped[str] = mapped_column(String(32))
    consent: Mapped[dict[str, str] | None] = mapped_column(JSON)
    footage_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[str] = mapped_column(String(32))
    enrolment_sha256: Mapped[str] = mapped_column(String(64))


class LineageRow(Base):
    """One artefact that came from an actor's footage. A blob that several actors share has a row for each."""

    __tablename__ = "lineage"

    actor_id: Mapped[str] = mapped_column(ForeignKey("actors.actor_id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(32))
    uri: Mapped[str] = mapped_column(String(1024))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobBlobRow(Base):
    """A blob that a job made and may share with other jobs and actors; counted until the job ends."""

    __tablename__ = "job_blobs"

    folder: Mapped[str] = mapped_column(String(1024), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    uri: Mapped[str] = mapped_column(String(1024))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobRow(Base):
    """A job folder that holds work made with an actor; erased with them."""

    __tablename__ = "actor_jobs"

    actor_id: Mapped[str] = mapped_column(ForeignKey("actors.actor_id"), primary_key=True)
    folder: Mapped[str] = mapped_column(String(1024), primary_key=True)
