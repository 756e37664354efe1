"""The PostgreSQL that the gateways share. The chart has none: its users bring their own, and name a Secret with its url."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.contract.stores.postgres_servers import running_postgres

SECRET: Final = "play-database"
"""Secret with the key `url`, which values.yaml names."""
DATABASE: Final = "play"


@contextmanager
def database_url(given: str) -> Iterator[str]:
    """Yield the url of an empty database.

    Args:
        given: url of the user's own database; empty: a server is started on 127.0.0.1, which ends with the block.
    """
    if given:
        yield given
        return
    with running_postgres() as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        yield server.url(DATABASE)
