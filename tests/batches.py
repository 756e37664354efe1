"""Stores of batches for tests: SQLite in a folder."""

from __future__ import annotations

from pathlib import Path

from gateway.batch.store import BatchStore
from gateway.database.session import Database


def open_store(folder: Path) -> BatchStore:
    """Return the store of batches in a data folder, which is made. Each call has connections of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return BatchStore(Database("", folder))


def names_of(store: BatchStore) -> list[str]:
    """Return the names of all batches."""
    return [facts.name for facts in store.batches()]
