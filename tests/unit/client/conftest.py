from __future__ import annotations

from collections.abc import Iterator

import pytest

from dubstage.client import Connection, connect
from tests.unit.client.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def connection(server: FakeServer) -> Iterator[Connection]:
    with connect(server.target, timeout_s=60) as made:
        yield made
