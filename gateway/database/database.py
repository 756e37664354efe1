"""The database: opening, the gateway's claim, sessions, and what failures mean."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from gateway.database import sqlite_file
from gateway.database.tables import Base, WrongType
from services.common.errors import BackendUnavailable, InvalidRequest, StorageFull, StorageRefused

CONNECT_SECONDS: Final = 5
"""Most seconds to wait for a connection to PostgreSQL."""
FIELD: Final = "DUBSTAGE_DATABASE_URL"
"""Setting that holds the URL."""
_CONNECTION: Final = {
    "connect_timeout": CONNECT_SECONDS,
    # A server that vanished is noticed after 25 s, not after the two hours of the kernel's default.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "dubstage",
}
"""Options of libpq that the URL can replace."""
_SCHEMA_LOCK: Final = 0x6475_6273
"""Key of the PostgreSQL advisory lock that a process holds while it creates tables. All processes use the same key."""
_GATEWAY_LOCK: Final = 0x6475_6274
"""Key of the PostgreSQL advisory lock that a gateway holds as long as it works. All gateways use the same key."""
_REFUSALS: Final = ("28", "3D", "42501", "25006")
"""Beginnings of PostgreSQL's codes for wrong credentials, unknown databases, missing permissions and read-only servers."""
_LOGIN_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|not permitted to log in|permission denied|pg_hba\.conf"
)
"""Matches the texts of refused log-ins, which have no code because there is no connection yet."""


class Database:
    """SQLite in a file, or PostgreSQL at a URL. Missing tables are created. Safe for several threads.

    Connections are tested before each use, so that a restart of the server causes no error.

    Attributes:
        engine: SQLAlchemy's engine.
        where: the URL without the password, for error texts.
        file: SQLite's file; None: PostgreSQL.

    Args:
        url: SQLAlchemy URL, such as `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`; empty: SQLite.
        data_dir: folder of the SQLite file.

    Raises:
        InvalidRequest: the URL is no URL, or names neither SQLite nor PostgreSQL.
        StorageRefused, BackendUnavailable: the database cannot be used, or does not answer. No error text shows the password.
    """

    def __init__(self, url: str, data_dir: Path) -> None:
        self.engine: Engine = _engine(url or f"sqlite:///{data_dir / 'actors.sqlite'}")
        self.where: str = self.engine.url.render_as_string(hide_password=True)
        self.file: Path | None = _file(self.engine)
        self._writer: Engine = self.engine.execution_options(**{sqlite_file.BEGIN: "IMMEDIATE"})
        self._claim: Connection | int | None = None
        if self.file is not None:
            sqlite_file.make_private(self.file, tighten=not url)
        try:
            self.make_tables()
        except BaseException:
            self.engine.dispose()
            raise

    def make_tables(self) -> None:
        """Create the tables that do not exist yet. Code that declares further tables calls this method again."""
        with self.told(), self._writer.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                # Without the lock, two processes that begin at the same time both create the tables, and one of them fails.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            Base.metadata.create_all(connection)

    def claim(self) -> None:
        """Keep every other gateway out of the database until `close()`, or until this process or its connection ends.

        Two gateways would take up each other's operations.

        Raises:
            InvalidRequest: another gateway works with the database.
        """
        if not self.try_claim():
            raise InvalidRequest(
                f"another gateway works with the database {self.where}, or `dubstage actor erase` does: end that process, or give "
                "this gateway a database of its own",
                field=FIELD,
            )

    def try_claim(self) -> bool:
        """Claim the database as `claim` does, and return True; return False if another gateway works with the database."""
        if self.file is not None:
            try:
                handle = sqlite_file.hold(self.file)
            except OSError as problem:
                raise self._refused(problem.strerror or str(problem)) from problem
            self._claim = handle
            return handle is not None
        if self.engine.dialect.name != "postgresql":
            return True
        with self.told():
            connection = self.engine.connect()
            # The connection leaves the pool: the lock lasts as long as the connection is open.
            connection.detach()
            # If this gateway's machine vanishes, the server ends the connection after 25 s, and the next gateway can begin.
            for setting, value in (("idle", 10), ("interval", 5), ("count", 3)):
                connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
            free = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _GATEWAY_LOCK}).scalar()
            connection.commit()
        if not free:
            connection.close()
            return False
        self._claim = connection
        return True

    def release_claim(self) -> None:
        """Let other gateways use the database again."""
        claim, self._claim = self._claim, None
        if isinstance(claim, int):
            os.close(claim)
        elif claim is not None:
            with suppress(DBAPIError):
                claim.close()

    def check_integrity(self) -> None:
        """Check the whole SQLite file for damage. PostgreSQL is only asked whether it answers.

        Raises:
            StorageRefused: the SQLite file is damaged; the message names the file and the remedy.
            BackendUnavailable: the database does not answer.
        """
        with self.told(), self.engine.connect() as connection:
            if self.engine.dialect.name != "sqlite":
                connection.execute(text("SELECT 1"))
                return
            found = sqlite_file.first_damage(connection)
        if found:
            raise self.damaged(found)

    def damaged(self, found: str) -> StorageRefused:
        """Return the error for a damaged database.

        Args:
            found: the damage, such as "database disk image is malformed".
        """
        name = f"file {self.file}" if self.file is not None else self.where
        return StorageRefused(
            f"the database {name} is damaged ({found}): restore it from a backup, or move it away and enrol every actor anew; "
            "`dubstage doctor` checks it",
            subject=self.where,
        )

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that changes nothing."""
        with self.told(), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session in one transaction: all changes are kept, or none."""
        with self.told(), Session(self._writer) as session, session.begin():
            yield session

    @contextmanager
    def told(self) -> Iterator[None]:
        """Translate failures of the database to errors of dubstage.

        Errors of a single statement, such as a key that exists already, pass unchanged.

        Raises:
            StorageRefused: credentials, permissions or the database's name are wrong, or the file is damaged.
            StorageFull: no space is left for SQLite's file.
            BackendUnavailable: the database does not answer, or broke the connection.
        """
        try:
            yield
        except WrongType as error:
            raise self.damaged(str(error)) from error
        except (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.Error) as error:
            raise self._failure(error) from error
        except DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            if error.connection_invalidated or _state(error).startswith(_REFUSALS) or sqlite_file.is_damaged(cause):
                raise self._failure(error) from error
            raise

    def close(self) -> None:
        """Close all connections."""
        self.release_claim()
        self.engine.dispose()

    def _refused(self, said: str) -> StorageRefused:
        return StorageRefused(
            f"the database {self.where} refuses: {said}: check the permissions of folder and file, DUBSTAGE_DATA_DIR and {FIELD}",
            subject=self.where,
        )

    def _failure(self, error: Exception) -> StorageRefused | StorageFull | BackendUnavailable:
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
            cause = getattr(error, "orig", None) or error
            if sqlite_file.is_damaged(cause):
                return self.damaged(said)
            if sqlite_file.is_refused(cause):
                return self._refused(said)
            if sqlite_file.is_full(cause):
                return StorageFull(f"no space left for the database {self.where}: free some space on that disk", subject=self.where)
            return BackendUnavailable(f"the database {self.where} cannot be used: {said}: check DUBSTAGE_DATA_DIR or {FIELD}")
        return BackendUnavailable(
            f"the database {self.where} does not answer: {said}: check that it runs and that {FIELD} names its host and port",
            retry_after_s=5.0,
        )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text does not repeat the setting, which may hold a password in the wrong place.
        raise InvalidRequest(
            f"{FIELD} is no URL: give postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE", field=FIELD
        ) from None
    kind = parsed.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise InvalidRequest(f"{FIELD}: {kind!r} is not supported: give a URL of postgresql or sqlite", field=FIELD)
    if kind == "sqlite":
        engine = create_engine(parsed)
        sqlite_file.set_up(engine)
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


def _file(engine: Engine) -> Path | None:
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def _state(error: Exception) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
