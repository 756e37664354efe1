"""Tables of the audit log."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.tables import Base


class AuditRow(Base):
    """One entry. Rows are added and never changed."""

    __tablename__ = "audit_log"

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False)
    """Number of the entry, from 1, without gaps."""
    line: Mapped[str] = mapped_column(Text)
    """The entry in canonical JSON, ASCII."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the line, which the next entry holds."""
    work: Mapped[str] = mapped_column(String(160), index=True)
    """Name of the work that the entry is about, so that the end of the work finds its beginning; empty: none."""


class AuditPersonRow(Base):
    """The random name that a person has in the audit log. An erasure deletes the row: nothing else ties the name to the person."""

    __tablename__ = "audit_people"

    actor_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(32), index=True)
