"""The database of an installation, in SQLite or PostgreSQL: opening by URL, sessions, the errors that failures become, and locks.

The locks are PostgreSQL's advisory locks, which processes hold without locking a row: gateways claim the database, and processes
take turns.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Double, cast, create_engine, extract, func, insert, inspect, select, text, true
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema

from gateway.database import sqlite, upgrades
from gateway.database.tables import InstallationRow, WrongTypeError
from gateway.settings import DATABASE_CONNECTIONS
from gateway.times import DAY_S
from services.common.errors import BackendUnavailableError, InvalidRequestError, StorageFullError, StorageRefusedError
from services.common.server.call_context import DEFAULT_TENANT
from services.common.server.settings import DATABASE_FILE

SCHEMA: Final = 0x6475_6273
"""Key of the lock that a process holds while it creates tables. All processes use the same key."""
GATEWAY: Final = 0x6475_6274
"""Key of the lock that gateways share as long as they work, and that an erasure without a gateway holds exclusively."""
QUEUE: Final = 0x6475_6275
"""Key of the lock of transactions of one tenant that must come one after the other."""
TURN: Final = 0x6475_6276
"""First key of the locks of single pieces of a tenant's work. The second key is the number of the work."""
AUDIT: Final = 0x6475_6277
"""Key of the lock of transactions that write to a tenant's audit log. No transaction waits for another lock behind this one."""
BLOBS: Final = 0x6475_6278
"""Key of the lock that a tenant's transactions share while they count blobs, and that an erasure holds while it deletes blobs."""
PAUSED_S: Final = 20
"""Seconds without a statement after which the server ends a transaction that changes something, and its connection."""
CONNECT_SECONDS: Final = 5
"""Most seconds to wait for a connection to PostgreSQL."""
FIELD: Final = "DUBSTAGE_DATABASE_URL"
"""Setting that holds the URL."""
CONNECTIONS_FIELD: Final = "DUBSTAGE_DATABASE_CONNECTIONS"
"""Setting that holds the most connections of a process."""
_KEPT: Final = 2
"""Most connections that stay open while nothing uses them. Further connections are closed after their use."""
_WAIT_S: Final = 30
"""Most seconds to wait until another thread gives a connection back."""
_CONNECTION: Final = {
    "connect_timeout": CONNECT_SECONDS,
    # A server that vanished is noticed after 25 s, not after the two hours of the kernel's default.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "dubstage",
}
"""Options of libpq that the URL can replace."""
SCHEMA_PREFIX: Final = "dubstage_"
"""Beginning of the names of tenants' schemas in PostgreSQL."""
_UNIX_EPOCH: Final = 2440587.5
"""Julian day of the beginning of Unix time."""
_REFUSALS: Final = ("28", "3D", "42501", "25006")
"""Beginnings of PostgreSQL's codes for wrong credentials, unknown databases, missing permissions and read-only servers."""
_MISSING_TABLE: Final = "42P01"
"""PostgreSQL's code for a statement about a table that does not exist."""
_NO_CONNECTION_FREE: Final = re.compile(r"too many (clients|connections)|connection slots are reserved")
"""Matches the texts of a PostgreSQL that has its largest number of connections, which have no code either."""
_LOGIN_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|not permitted to log in|permission denied|pg_hba\.conf"
)
"""Matches the texts of refused log-ins, which have no code because there is no connection yet."""


def wait_in_transaction(connection: Connection, key: int, *, together: bool = False) -> None:
    """Wait until no other transaction holds a lock, and hold it until the transaction ends.

    Args:
        connection: connection of the transaction.
        key: key of the lock.
        together: whether several transactions may hold the lock together.
    """
    kind = "pg_advisory_xact_lock_shared" if together else "pg_advisory_xact_lock"
    connection.execute(text(f"SELECT {kind}(:key)"), {"key": key})


def end_if_paused(connection: Connection) -> None:
    """Let the server end the transaction if this process pauses inside it: the rows and locks that it holds keep others out."""
    connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{PAUSED_S}s'"))


def use_schema(connection: Connection, schema: str) -> None:
    """Let names without a schema name tables of this schema alone, until the transaction ends."""
    connection.execute(text(f"SET LOCAL search_path TO {connection.dialect.identifier_preparer.quote(schema)}"))


def hold(engine: Engine, key: int, *, number: int | None = None, together: bool = False) -> Connection | None:
    """Take a lock, and return the connection that holds it; None: another process holds the lock.

    The lock lasts until the connection is closed, or until this process ends.

    Args:
        engine: the engine of the database.
        key: key of the lock.
        number: second key; None: the lock has one key.
        together: whether several processes may hold the lock together.
    """
    connection = engine.connect()
    # The connection leaves the pool: the lock lasts as long as the connection is open.
    connection.detach()
    try:
        # If this process's machine vanishes, the server ends the connection after 25 s.
        for setting, value in (("idle", 10), ("interval", 5), ("count", 3)):
            connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
        kind = "pg_try_advisory_lock_shared" if together else "pg_try_advisory_lock"
        keys = {"key": key} if number is None else {"key": key, "number": number % (1 << 31)}
        free = connection.execute(text(f"SELECT {kind}({', '.join(f':{name}' for name in keys)})"), keys).scalar()
        connection.commit()
    except BaseException:
        release(connection)
        raise
    if not free:
        release(connection)
        return None
    return connection


def is_held(connection: Connection) -> bool:
    """Return whether the connection that holds a lock still works."""
    try:
        connection.execute(text("SELECT 1"))
        connection.commit()
    except DBAPIError:
        return False
    return True


def release(connection: Connection) -> None:
    """Release the lock that a connection holds."""
    with suppress(DBAPIError):
        try:
            # The server notices a closed connection a little later, and would refuse the lock to the next process until then.
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
            connection.commit()
        finally:
            connection.close()


def engine_of(url: str, connections: int) -> Engine:
    """Return the engine of a URL.

    Args:
        url: as for Database.
        connections: as for Database.

    Raises:
        InvalidRequestError: the URL is no URL, or names neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text does not repeat the setting, which may hold a password in the wrong place.
        raise InvalidRequestError(
            f"{FIELD} is no URL: give postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE", field=FIELD
        ) from None
    kind = parsed.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise InvalidRequestError(f"{kind!r} is not supported: give a URL of postgresql or sqlite", field=FIELD, named=True)
    if kind == "sqlite":
        engine = create_engine(parsed)
        sqlite.set_up(engine)
        return engine
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=min(_KEPT, connections),
            max_overflow=max(0, connections - _KEPT),
            pool_timeout=_WAIT_S,
            connect_args={name: value for name, value in _CONNECTION.items() if name not in parsed.query},
        )
    except (ImportError, NoSuchModuleError):
        raise InvalidRequestError(
            "PostgreSQL needs its driver: pip install 'dubstage-suite[postgres]'", field=FIELD, named=True
        ) from None


class Database:
    """SQLite in a file, or PostgreSQL at a URL. The tables are created or upgraded. Safe for several threads.

    Connections are tested before each use, so that a restart of the server causes no error.

    Attributes:
        engine: SQLAlchemy's engine.
        where: the URL without the password, for error texts.
        tenant: whose tables these are.
        file: SQLite's file; None: PostgreSQL.
        opened_revision: revision that the tables had when the database was opened, before the upgrade; empty: none.
        id: random id of these tables, 32 hexadecimal digits. The artefact store whose blobs the tables count carries the id.

    Args:
        url: SQLAlchemy URL, such as `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`; empty: SQLite.
        data_dir: folder of the SQLite file.
        tenant: see the attribute. In PostgreSQL each tenant but the default tenant has a schema of its own.
        beside: database of the same URL whose connections and claim are used; None: the database has its own.
        connections: most connections to PostgreSQL at the same time, at least 1. The connections that hold the claim and turns come
            on top.

    Raises:
        InvalidRequestError: the URL is no URL, or names neither SQLite nor PostgreSQL.
        StorageRefusedError, BackendUnavailableError: the database cannot be used, a later version of dubstage made the tables, or
            the database does not answer. No error text shows the password.
    """

    def __init__(
        self,
        url: str,
        data_dir: Path,
        *,
        tenant: str = DEFAULT_TENANT,
        beside: Database | None = None,
        connections: int = DATABASE_CONNECTIONS,
    ) -> None:
        self.tenant = tenant
        self._is_guest = beside is not None and beside.shared
        if beside is not None and self._is_guest:
            self.engine: Engine = beside.engine
        else:
            self.engine = engine_of(url or f"sqlite:///{data_dir / DATABASE_FILE}", connections)
        self._schema: str | None = None
        self._salt = 0
        if self.shared and tenant != DEFAULT_TENANT:
            self._schema = f"{SCHEMA_PREFIX}{tenant}"
            self._salt = int.from_bytes(hashlib.sha256(self._schema.encode()).digest()[:8], signed=True)
            self.engine = self.engine.execution_options(schema_translate_map={None: self._schema})
        self.where: str = self.engine.url.render_as_string(hide_password=True)
        self.file: Path | None = _file(self.engine)
        self._writer: Engine = self.engine.execution_options(**{sqlite.BEGIN: "IMMEDIATE"})
        self._claim: Connection | int | None = None
        self._is_gateway = False
        self.id = self.opened_revision = ""
        if self.file is not None:
            sqlite.make_private(self.file, tighten=not url)
        try:
            self.make_tables()
        except BaseException:
            if not self._is_guest:
                self.engine.dispose()
            raise

    def make_tables(self) -> None:
        """Create the tables, or upgrade them to the revision of this version of dubstage. One query, if they have that revision.

        Raises:
            StorageRefusedError: a later version of dubstage made the tables. Nothing was changed.
        """
        with self.domain_errors():
            stored = self._revision_and_id()
            if stored is not None and stored[0] == upgrades.head():
                self.opened_revision, self.id = stored
                return
            with upgrades.ONE_AT_A_TIME, self._changing_tables() as connection:
                self.opened_revision = upgrades.upgrade(connection, self._named)
                self.id = _id_in(connection)

    def _revision_and_id(self) -> tuple[str, str] | None:
        query = select(upgrades.RECORD.c.version_num, InstallationRow.id).join_from(upgrades.RECORD, InstallationRow, true())
        try:
            with self.engine.connect() as connection:
                row = connection.execute(query).first()
        except DBAPIError as error:
            if _misses_table(error):
                return None
            raise
        return None if row is None else (row[0], row[1])

    @contextmanager
    def _changing_tables(self) -> Iterator[Connection]:
        """Give a connection in a transaction that no other process changes tables in at the same time."""
        with self._writer.connect() as connection, sqlite.changing_tables(connection), connection.begin():
            if self.shared:
                # Without the lock, two processes that begin at the same time both create the tables, and one of them fails.
                wait_in_transaction(connection, SCHEMA)
            if self._schema is not None and not inspect(connection).has_schema(self._schema):
                connection.execute(CreateSchema(self._schema))
            self.use_schema(connection)
            yield connection

    def use_schema(self, connection: Connection) -> None:
        """Let statements that SQLAlchemy does not translate, such as ALTER TABLE, reach the tenant's tables until the transaction
        ends.
        """
        if self._schema is not None:
            use_schema(connection, self._schema)

    @property
    def _named(self) -> str:
        return self.where if self.tenant == DEFAULT_TENANT else f"{self.where} (tenant {self.tenant})"

    @property
    def shared(self) -> bool:
        """Whether several gateways may use the database at the same time: PostgreSQL. A SQLite file has one gateway."""
        return self.engine.dialect.name == "postgresql"

    @property
    def clock(self) -> ColumnElement[float]:
        """The time of the database, Unix time in seconds. Leases end by this clock: clocks of gateways need not agree."""
        if self.shared:
            return cast(extract("epoch", func.clock_timestamp()), Double)
        return (func.julianday("now") - _UNIX_EPOCH) * DAY_S

    def claim(self, *, alone: bool = False) -> None:
        """Say that a gateway works with the database, until `close()`, or until this process or its connection ends.

        Args:
            alone: let no gateway work with the database meanwhile.

        Raises:
            InvalidRequestError: another gateway works with the SQLite file, a gateway works with PostgreSQL and this process must
                be alone, or another process is alone with PostgreSQL.
        """
        if self._is_guest or self._try_claim(together=self.shared and not alone):
            self._is_gateway = self.shared and not alone and not self._is_guest
            return
        if self.shared and alone:
            raise InvalidRequestError(f"a gateway works with the database {self.where}: end every gateway first", field=FIELD)
        if self.shared:
            raise InvalidRequestError(
                f"`dubstage actor erase` works with the database {self.where}: start this gateway when that process has ended",
                field=FIELD,
            )
        raise InvalidRequestError(
            f"another gateway works with the database {self.where}, or `dubstage actor erase` does: end that process, give this "
            "gateway a database of its own, or let several gateways share a PostgreSQL",
            field=FIELD,
        )

    def keep_claim(self) -> None:
        """Claim the database again if a restart of PostgreSQL has ended the claim.

        Raises:
            InvalidRequestError: as `claim`. The next call tries again.
            BackendUnavailableError: the database does not answer.
        """
        if self._is_gateway and not (isinstance(self._claim, Connection) and is_held(self._claim)):
            self.release_claim()
            self.claim()

    def try_claim(self) -> bool:
        """Claim the database for this process alone, and return True; return False if a gateway works with the database."""
        return self._try_claim(together=False)

    def _try_claim(self, *, together: bool) -> bool:
        if self.file is not None:
            try:
                handle = sqlite.hold(self.file)
            except OSError as problem:
                raise self._refused(problem.strerror or str(problem)) from problem
            self._claim = handle
            return handle is not None
        if not self.shared:
            return True
        with self.domain_errors():
            self._claim = hold(self.engine, GATEWAY, together=together)
        return self._claim is not None

    @contextmanager
    def turn(self, number: int) -> Iterator[bool]:
        """Give True if no other process does the work of this number now. The turn ends with the context, or with this process."""
        if not self.shared:
            yield True
            return
        with self.domain_errors():
            held = hold(self.engine, self._own(TURN) % (1 << 31), number=number)
        try:
            yield held is not None
        finally:
            if held is not None:
                release(held)

    def _own(self, key: int) -> int:
        """Return the key of a lock of this tenant alone: PostgreSQL's locks belong to a database, not to a schema."""
        return key ^ self._salt

    def one_by_one(self, session: Session) -> None:
        """Let the transaction wait for other transactions that called this method. SQLite orders its writers anyway."""
        if self.shared:
            wait_in_transaction(session.connection(), self._own(QUEUE))

    def count_blobs(self, session: Session, digests: Iterable[str]) -> None:
        """Let the transaction wait for other transactions that count or delete one of a few blobs, and for erasures that delete
        blobs. SQLite orders its writers anyway.

        Rows are locked before, and locks of other kinds behind, so that no two transactions wait for each other.

        Args:
            session: session of the transaction.
            digests: SHA-256 of the blobs that the transaction counts or deletes, hexadecimal.
        """
        if self.shared:
            connection = session.connection()
            wait_in_transaction(connection, self._own(BLOBS), together=True)
            # All processes lock in the same order.
            for key in sorted({int.from_bytes(bytes.fromhex(digest)[:8], signed=True) for digest in digests}):
                wait_in_transaction(connection, self._own(key))

    def delete_blobs(self, session: Session) -> None:
        """Let the transaction wait for all other transactions that called `count_blobs`, and keep them out until its end.

        An erasure deletes more blobs than there are locks. SQLite orders its writers anyway.
        """
        if self.shared:
            wait_in_transaction(session.connection(), self._own(BLOBS))

    def audit_one_by_one(self, session: Session) -> None:
        """Let the transaction wait for other transactions that write to the audit log. SQLite orders its writers anyway."""
        if self.shared:
            wait_in_transaction(session.connection(), self._own(AUDIT))

    def release_claim(self) -> None:
        """Let other gateways use the database again."""
        claim, self._claim = self._claim, None
        if isinstance(claim, int):
            os.close(claim)
        elif claim is not None:
            release(claim)

    def check_integrity(self) -> None:
        """Check the whole SQLite file for damage. PostgreSQL is only asked whether it answers.

        Raises:
            StorageRefusedError: the SQLite file is damaged; the message names the file and the remedy.
            BackendUnavailableError: the database does not answer.
        """
        with self.domain_errors(), self.engine.connect() as connection:
            if self.engine.dialect.name != "sqlite":
                connection.execute(text("SELECT 1"))
                return
            damage = sqlite.first_damage(connection)
        if damage:
            raise self.damaged(damage)

    def damaged(self, damage: str) -> StorageRefusedError:
        """Return the error for a damaged database.

        Args:
            damage: the damage, such as "database disk image is malformed".
        """
        name = f"file {self.file}" if self.file is not None else self.where
        return StorageRefusedError(
            f"the database {name} is damaged ({damage}): restore it from a backup, or move it away and enrol every actor anew; "
            "`dubstage doctor` checks it",
            subject=self.where,
        )

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that changes nothing."""
        with self.domain_errors(), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session in one transaction: all changes are kept, or none."""
        with self.domain_errors(), Session(self._writer) as session, session.begin():
            if self.shared:
                end_if_paused(session.connection())
            yield session

    @contextmanager
    def domain_errors(self) -> Iterator[None]:
        """Translate failures of the database to errors of dubstage.

        Errors of a single statement, such as a key that exists already, pass unchanged.

        Raises:
            StorageRefusedError: credentials, permissions or the database's name are wrong, the file is damaged, or a table is
                missing.
            StorageFullError: no space is left for SQLite's file.
            BackendUnavailableError: the database does not answer, or broke the connection.
        """
        try:
            yield
        except WrongTypeError as error:
            raise self.damaged(str(error)) from error
        except UnicodeDecodeError as error:
            # The driver reads names of tables and columns, and texts of rows.
            raise self.damaged("a text in it is no UTF-8") from error
        except (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.Error) as error:
            raise self._failure(error) from error
        except DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            refused = _state(error).startswith(_REFUSALS) or _misses_table(error) or sqlite.is_damaged(cause)
            if error.connection_invalidated or refused:
                raise self._failure(error) from error
            raise

    def close(self) -> None:
        """Close all connections."""
        self.release_claim()
        if not self._is_guest:
            self.engine.dispose()

    def _refused(self, said: str) -> StorageRefusedError:
        return StorageRefusedError(
            f"the database {self.where} refuses: {said}: check the permissions of folder and file, DUBSTAGE_DATA_DIR and {FIELD}",
            subject=self.where,
        )

    def _failure(self, error: Exception) -> StorageRefusedError | StorageFullError | BackendUnavailableError:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:300].rstrip(".")
        password = self.engine.url.password
        if password:
            said = said.replace(str(password), "***")
        cause = getattr(error, "orig", None) or error
        if _misses_table(error) or sqlite.is_damaged(cause):
            return self.damaged(said)
        state = _state(error)
        if state.startswith(_REFUSALS) or (not state and _LOGIN_REFUSED.search(said)):
            return StorageRefusedError(
                f"the database {self.where} refuses: {said}: check user, password, database and permissions in {FIELD}",
                subject=self.where,
            )
        if self.engine.dialect.name == "sqlite":
            if sqlite.is_refused(cause):
                return self._refused(said)
            if sqlite.is_full(cause):
                return StorageFullError(
                    f"no space left for the database {self.where}: free some space on that disk", subject=self.where
                )
            return BackendUnavailableError(f"the database {self.where} cannot be used: {said}: check DUBSTAGE_DATA_DIR or {FIELD}")
        return self._unanswered(error, said)

    def _unanswered(self, error: Exception, said: str) -> BackendUnavailableError:
        """Return the error for a PostgreSQL that gives no connection or no answer."""
        if isinstance(error, PoolTimeoutError):
            return BackendUnavailableError(
                f"all connections of this process to the database {self.where} have been in use for {_WAIT_S} s: raise "
                f"{CONNECTIONS_FIELD}, or run more gateways",
                retry_after_s=5.0,
            )
        if _NO_CONNECTION_FREE.search(said):
            return BackendUnavailableError(
                f"the database {self.where} has no free connection: {said}: raise max_connections of PostgreSQL, or lower "
                f"{CONNECTIONS_FIELD} or the number of gateways and workers",
                retry_after_s=5.0,
            )
        return BackendUnavailableError(
            f"the database {self.where} does not answer: {said}: check that it runs and that {FIELD} names its host and port",
            retry_after_s=5.0,
        )


def new_holder() -> str:
    """Return a name for a process, or a part of a process, that holds leases in the database. No two calls return the same."""
    return f"{socket.gethostname()[:60]}-{secrets.token_hex(8)}"


def _id_in(connection: Connection) -> str:
    """Return the id of the tables, which the first call draws. No other process calls at the same time."""
    stored = connection.scalar(select(InstallationRow.id))
    if stored is None:
        stored = secrets.token_hex(16)
        connection.execute(insert(InstallationRow).values(id=stored))
    return stored


def _file(engine: Engine) -> Path | None:
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def _misses_table(error: Exception) -> bool:
    return _state(error) == _MISSING_TABLE or sqlite.misses_table(getattr(error, "orig", None) or error)


def _state(error: Exception) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
