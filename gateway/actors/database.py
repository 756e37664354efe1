"""The database: how it is opened, and the tables of actors and of the lineage of their artefacts."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import JSON, BigInteger, ForeignKey, String, create_engine, event, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from services.common.errors import BackendUnavailable, InvalidRequest, StorageRefused

CONNECT_SECONDS: Final = 5
FIELD: Final = "DUBSTAGE_DATABASE_URL"
_CONNECTION: Final = {
    "connect_timeout": CONNECT_SECONDS,
    # A peer that vanished without a word is noticed in half a minute, not in the kernel's two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "dubstage",
}
"""Of libpq, where the url says nothing else."""
# Any number, the same in every gateway: whoever makes the tables holds it.
_SCHEMA_LOCK: Final = 0x6475_6273
_GATEWAY_LOCK: Final = 0x6475_6274
_REFUSALS: Final = ("28", "3D", "42501", "25006")
"""PostgreSQL's classes of wrong credentials and unknown databases, and its codes of no permission and of a read-only server."""
# A refused log-in has no connection and so no code: only its text says that the server did answer.
_LOGIN_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|not permitted to log in|permission denied|pg_hba\.conf"
)
_NAME: Final = String(63).with_variant(String(63, collation="C"), "postgresql")
"""Of an actor: ordered by its characters, whatever the server's language."""


class Base(DeclarativeBase):
    """Of all tables."""


class ActorRow(Base):
    """One enrolled person."""

    __tablename__ = "actors"

    actor_id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    method: Mapped[str] = mapped_column(String(32))
    consent: Mapped[dict[str, str] | None] = mapped_column(JSON)
    footage_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[str] = mapped_column(String(32))
    enrolment_sha256: Mapped[str] = mapped_column(String(64))


class LineageRow(Base):
    """One artefact that came from an actor's footage. A blob that several actors share has a row for each."""

    __tablename__ = "lineage"

    actor_id: Mapped[str] = mapped_column(_NAME, ForeignKey("actors.actor_id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(32))
    uri: Mapped[str] = mapped_column(String(4096))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobBlobRow(Base):
    """A blob that a job made and may share with other jobs and actors; counted until the job ends."""

    __tablename__ = "job_blobs"

    folder: Mapped[str] = mapped_column(String(4096), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    uri: Mapped[str] = mapped_column(String(4096))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class JobRow(Base):
    """A job folder that holds work made with an actor; erased with them."""

    __tablename__ = "actor_jobs"

    actor_id: Mapped[str] = mapped_column(_NAME, ForeignKey("actors.actor_id"), primary_key=True)
    folder: Mapped[str] = mapped_column(String(4096), primary_key=True)


class Database:
    """SQLite in a file, or PostgreSQL by url. Its tables are made at the first use. Safe for several threads.

    Connections are tested before each use, so that a server which was restarted is not noticed.

    Args:
        url: SQLAlchemy's, `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`; empty: SQLite.
        data_dir: folder of the SQLite file.

    Raises:
        InvalidRequest: not a url, or of a database that is neither.
        StorageRefused, BackendUnavailable: it cannot be used, or does not answer. No error text shows the password.
    """

    def __init__(self, url: str, data_dir: Path) -> None:
        self.engine: Engine = _engine(url or f"sqlite:///{data_dir / 'actors.sqlite'}")
        self.where: str = self.engine.url.render_as_string(hide_password=True)
        """The url without its password."""
        self._claim: Connection | None = None
        try:
            self.make_tables()
        except BaseException:
            self.engine.dispose()
            raise

    def make_tables(self) -> None:
        """Make the tables that are not there yet; whoever declares further ones calls it again."""
        with self.told(), self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                # Two processes that begin at once must not both find that there is no table yet.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            Base.metadata.create_all(connection)

    def claim(self) -> None:
        """Keep every other gateway out of a PostgreSQL database until `close()`, or until this process or its connection ends.

        Two would take up each other's operations. SQLite lies in a data folder, which has a lock of its own.

        Raises:
            InvalidRequest: another gateway works with it.
        """
        if self.engine.dialect.name != "postgresql":
            return
        with self.told():
            connection = self.engine.connect()
            # Out of the pool: it holds the lock for as long as it is open.
            connection.detach()
            # A gateway whose machine vanished must not keep its successor out for long.
            for setting, value in (("idle", 10), ("interval", 5), ("count", 3)):
                connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
            free = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _GATEWAY_LOCK}).scalar()
            connection.commit()
        if not free:
            connection.close()
            raise InvalidRequest(
                f"another gateway works with the database {self.where}: end it, or give this one a database of its own", field=FIELD
            )
        self._claim = connection

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that changes nothing."""
        with self.told(), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in a transaction: all of it is kept, or nothing."""
        with self.told(), Session(self.engine) as session, session.begin():
            yield session

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around every use: failures of the database, told as what they are. What a statement itself broke goes through.

        Raises:
            StorageRefused: credentials, permissions or the database's name are wrong.
            BackendUnavailable: it does not answer, or went away in between.
        """
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise self._failure(error) from error
        except DBAPIError as error:
            if error.connection_invalidated or _state(error).startswith(_REFUSALS):
                raise self._failure(error) from error
            raise

    def close(self) -> None:
        """Close all connections."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with suppress(DBAPIError):
                claim.close()
        self.engine.dispose()

    def _failure(self, error: Exception) -> StorageRefused | BackendUnavailable:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:300].rstrip(".")
        password = self.engine.url.password
        if password:
            said = said.replace(str(password), "***")
        state = _state(error)
        if state.startswith(_REFUSALS) or (not state and _LOGIN_REFUSED.search(said)):
            return StorageRefused(
                f"the database {self.where} refuses: {said}: check user, password, database and permissions in {FIELD}",
                subject=self.where,
            )
        if self.engine.dialect.name == "sqlite":
            return BackendUnavailable(f"the database {self.where} cannot be used: {said}: check DUBSTAGE_DATA_DIR or {FIELD}")
        return BackendUnavailable(
            f"the database {self.where} does not answer: {said}: check that it runs and that {FIELD} names its host and port",
            retry_after_s=5.0,
        )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not with what was given: it may hold a password in the wrong place.
        raise InvalidRequest(f"{FIELD} is no url: postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE", field=FIELD) from None
    kind = parsed.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise InvalidRequest(f"{FIELD}: actors and operations live in sqlite or postgresql, not in {kind!r}", field=FIELD)
    if kind == "sqlite":
        engine = create_engine(parsed)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=10,
            pool_timeout=30,
            connect_args={name: value for name, value in _CONNECTION.items() if name not in parsed.query},
        )
    except (ImportError, NoSuchModuleError):
        raise InvalidRequest(f"{FIELD}: PostgreSQL needs its driver: pip install 'dubstage-suite[postgres]'", field=FIELD) from None


def _state(error: Exception) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
