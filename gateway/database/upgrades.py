"""Revisions of the tables: which revision a database has, and the upgrade to the revision of this version of dubstage.

Alembic runs the migrations in migrations/versions/. Alembic takes about 0.1 s to import, so only an upgrade imports Alembic. What
each opening of a database needs, the newest revision, follows from the names of the files.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

from sqlalchemy import Column, MetaData, String, Table, inspect, select
from sqlalchemy.engine import Connection

from gateway.database.tables import InstallationRow
from services.common.errors import StorageRefusedError

MIGRATIONS: Final = Path(__file__).with_name("migrations")
"""Folder of Alembic's environment."""
RECORD: Final = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Table with one row, the revision of the other tables. Alembic creates and writes this table."""
ONE_AT_A_TIME: Final = threading.Lock()
"""Lock for `upgrade`: Alembic keeps the context of a running migration in variables of its modules. A thread takes this lock before
the database's lock, so that no two threads wait for each other."""


def revisions() -> list[str]:
    """Return the revisions that this version of dubstage knows, oldest first: the numbers at the beginning of the files' names."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def head() -> str:
    """Return the revision of the tables that this version of dubstage reads and writes."""
    return revisions()[-1]


def revision_of(connection: Connection) -> str:
    """Return the revision of a database; empty: the database is new."""
    if not inspect(connection).has_table(RECORD.name):
        return ""
    return connection.scalar(select(RECORD.c.version_num)) or ""


def check_revision(revision: str, where: str) -> None:
    """Check that this version of dubstage knows a revision of a database.

    Args:
        revision: the revision of the tables; empty: none.
        where: name of the database for error texts.

    Raises:
        StorageRefusedError: a later version of dubstage made the tables.
    """
    if revision and revision not in revisions():
        raise StorageRefusedError(
            f"the database {where} has tables of revision {revision[:32]!r}, which a later version of dubstage made. This version "
            f"knows revisions up to {head()}: install the later version again, or restore a copy or a backup of the database from "
            "before the upgrade",
            subject=where,
        )


def upgrade(connection: Connection, where: str) -> str:
    """Upgrade the tables, and return the revision that they had before; empty: none.

    The caller holds ONE_AT_A_TIME, and begins and ends the transaction. No other process changes tables meanwhile.

    Args:
        connection: connection with a transaction. Names without a schema reach the tables (`Database.use_schema`).
        where: name of the database for error texts.

    Raises:
        StorageRefusedError: a later version of dubstage made the tables, or the database has tables without a revision. Nothing was
            changed.
    """
    before = revision_of(connection)
    check_revision(before, where)
    if not before and inspect(connection).has_table(InstallationRow.__tablename__):
        raise StorageRefusedError(
            f"the database {where} is damaged: its tables have no revision ({RECORD.name}). Restore a copy or a backup",
            subject=where,
        )
    if before != head():
        # Alembic's own lines name its plugins and its implementation.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from alembic import command
        from alembic.config import Config

        config = Config()
        # Config replaces %(name)s in values.
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, head())
    return before
