from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.database.session import Database
from gateway.operations.store import OperationStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OperationStore]:
    database = Database("", tmp_path)
    yield OperationStore(database)
    database.close()
