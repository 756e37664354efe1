"""SQLAlchemy's engine of a database URL."""

from __future__ import annotations

from typing import Final

from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from gateway.database import sqlite_file
from services.common.errors import InvalidRequest

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


def may_be_shared(url: str) -> bool:
    """Return whether the URL names a database that several gateways may use at the same time."""
    return url.startswith("postgresql")


def engine_of(url: str) -> Engine:
    """Return the engine of a URL.

    Raises:
        InvalidRequest: the URL is no URL, or names neither SQLite nor PostgreSQL.
    """
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
