"""The rows of a backup: an SQLite database in a file, whichever database the installation has."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, Integer, RowMapping, StaticPool, Table, create_engine, func, insert, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from gateway.backup.archive import DATABASE, members
from gateway.database import sqlite, upgrades
from gateway.database.session import Database
from gateway.database.tables import (
    Base,
    BatchActorRow,
    BatchRow,
    InstallationRow,
    JobBlobRow,
    JobFolderRow,
    JobRow,
    LineageRow,
)
from gateway.operations.erasure import is_about
from gateway.operations.store import DUB, LeaseRow, OperationRow, shows_footage
from gateway.webhooks.store import DeliveryRow
from services.common.errors import InvalidRequestError
from services.common.files import translating_full_disk
from services.common.store.artefacts import ArtefactRef

TRANSIENT: Final = frozenset(
    table.__tablename__ for table in (JobFolderRow, JobBlobRow, JobRow, LeaseRow, DeliveryRow, InstallationRow)
)
"""Tables about the folders of running jobs, the gateways that run them, and the database itself. They are empty in a backup. The id
of the database is in the manifest."""
_ROWS_AT_ONCE: Final = 500
_ACTOR: Final = "actor_id"

assert OperationRow.__tablename__ in Base.metadata.tables  # the import declares the table


def kept_tables() -> list[Table]:
    """Return the tables of a backup. A table comes behind those that it refers to."""
    return [table for table in Base.metadata.sorted_tables if table.name not in TRANSIENT]


@contextmanager
def moment(database: Database, folder: Path) -> Iterator[Connection]:
    """Give a connection that sees the rows of one moment, whatever is written meanwhile.

    PostgreSQL keeps old rows for as long as a transaction sees them. SQLite's file cannot be written while it is read, and the rows
    of years take longer to read than a writer waits. So the connection reads a copy that SQLite's online backup makes.

    Args:
        folder: where the copy lies, without a name. A process that is killed leaves nothing.

    Raises:
        OSError: no space is left for the copy.
    """
    with database.domain_errors():
        if database.shared:
            options = database.engine.connect().execution_options(isolation_level="REPEATABLE READ")
            with options as connection, connection.begin():
                yield connection
            return
        copy, file = sqlite.nameless(folder)
        with file, closing(copy):
            with database.engine.connect() as connection, _full_disk_as_os_error():
                original = connection.connection.driver_connection
                assert isinstance(original, sqlite3.Connection)
                original.backup(copy)
            with _engine_of(copy).connect() as connection:
                yield connection


@contextmanager
def rows_in_file(source: Connection, folder: Path, without: Mapping[str, AbstractSet[str]]) -> Iterator[IO[bytes]]:
    """Give an SQLite database with the rows of an installation, as a file without a name.

    Args:
        source: connection to the rows of one moment.
        folder: folder whose disk holds the file.
        without: as for `copy_rows`.

    Raises:
        OSError: no space is left for the file.
    """
    driver, file = sqlite.nameless(folder)
    with file:
        with closing(driver), _full_disk_as_os_error(), _engine_of(driver).begin() as target:
            target.exec_driver_sql("BEGIN")
            Base.metadata.create_all(target)
            upgrades.RECORD.create(target)
            target.execute(insert(upgrades.RECORD), {"version_num": upgrades.head()})
            for table in kept_tables():
                copy_rows(source, target, table, without)
        yield file


@contextmanager
def rows_of(file: Path, folder: Path) -> Iterator[Connection]:
    """Give a connection to a copy of the rows of a backup, upgraded to the tables of this version and checked.

    Args:
        file: the backup.
        folder: folder whose disk holds the copy, without a name, while the block runs.

    Raises:
        InvalidRequestError: the file is no backup or is damaged, or has other tables.
        StorageFullError: no space is left for the copy.
    """
    message = f"no space left in {folder} for a copy of the backup's rows: free some space on that disk"
    with ExitStack() as opened:
        with fitting(file), translating_full_disk(message, folder), _full_disk_as_os_error(), closing(members(file)) as entries:
            name, content = next(entries, ("", io.BytesIO()))
            if name != DATABASE:
                raise ValueError(f"the first member behind the manifest is not {DATABASE}")
            driver, copy = sqlite.nameless(folder, content)
            opened.enter_context(copy)
            opened.enter_context(closing(driver))
            # The file may come from anybody.
            driver.execute("PRAGMA trusted_schema = OFF")
            engine = _engine_of(driver)
            with upgrades.ONE_AT_A_TIME, engine.begin() as connection:
                upgrades.upgrade(connection, "of the backup")
            connection = opened.enter_context(engine.connect())
            if damage := sqlite.first_damage(connection):
                raise ValueError(damage)
            for table in kept_tables():
                connection.execute(select(table).limit(1)).first()
        yield connection


@contextmanager
def fitting(file: Path) -> Iterator[None]:
    """Translate the errors of rows that do not fit.

    Args:
        file: the backup.

    Raises:
        InvalidRequestError: the rows do not fit the tables.
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError, sqlite3.Error, SQLAlchemyError) as problem:
        said = " ".join(str(problem).split())[:200]
        raise InvalidRequestError(f"the rows of {file} do not fit the tables of this version: {said}", field="file") from problem


def blobs_of(rows: Connection, without: Collection[str] = ()) -> dict[str, ArtefactRef]:
    """Return the blobs of all actors by SHA-256, in the order of the digests.

    Args:
        rows: connection to an installation's rows.
        without: ids of actors whose blobs are left out, unless other actors have them too.
    """
    lineage = rows.execute(
        select(LineageRow.sha256, LineageRow.uri, LineageRow.size_bytes, LineageRow.actor_id).order_by(LineageRow.sha256)
    )
    return {row.sha256: ArtefactRef(row.uri, row.sha256, row.size_bytes) for row in lineage if row.actor_id not in without}


def copy_rows(
    source: Connection, target: Connection, table: Table, without: Mapping[str, AbstractSet[str]] = MappingProxyType({})
) -> None:
    """Copy the rows of a table, in the order of the primary key. Few rows are in memory at a time.

    Args:
        source: connection to a database with the table.
        target: connection to another database with the same table, which is empty.
        without: SHA-256 of an actor's footage, hexadecimal, by id of the actor. Rows of these actors, batches and operations that
            name them, and lists of the faces of their footage are left out.
    """
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_ROWS_AT_ONCE)
    batch = table.c.name if table is BatchRow.__table__ else table.c.get("batch")
    if without and batch is not None:
        # Rows and pictures of a shot tell of the person.
        query = query.where(batch.not_in(select(BatchActorRow.batch).where(BatchActorRow.actor.in_(sorted(without)))))
    if without and table is OperationRow.__table__:
        shown = select(OperationRow.number).where(shows_footage(set().union(*without.values())))
        query = query.where(OperationRow.number.not_in(shown))
    for part in source.execute(query).mappings().partitions():
        if rows := [dict(row) for row in part if not _tells_of(table, row, without)]:
            target.execute(insert(table), rows)
    counter = next((column for column in table.primary_key.columns if isinstance(column.type, Integer)), None)
    if counter is not None and target.dialect.name == "postgresql":
        # The server's counter does not see numbers that were given.
        target.execute(
            select(func.setval(func.pg_get_serial_sequence(table.name, counter.name), func.max(counter))).where(
                text(f"EXISTS (SELECT 1 FROM {table.name})")
            )
        )


def _tells_of(table: Table, row: RowMapping, without: Collection[str]) -> bool:
    """Return whether a row belongs to one of the actors, or is an operation that names one of them."""
    if row.get(_ACTOR) in without:
        return True
    if table is not OperationRow.__table__ or row["kind"] != DUB:
        return False
    try:
        return any(is_about(row["request"], actor_id) for actor_id in without)
    except DecodeError:  # the request may hold a record of the person
        return True


def _engine_of(driver: sqlite3.Connection) -> Engine:
    return create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool)


@contextmanager
def _full_disk_as_os_error() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OperationalError) as problem:
        cause = problem.orig if isinstance(problem, OperationalError) else problem
        if isinstance(cause, Exception) and sqlite.is_full(cause):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from problem
        raise
