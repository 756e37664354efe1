"""Servers and folders for hostile cases, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, carphone: Path, astronaut: Path) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("hostile"), carphone, astronaut) as running:
        yield running
