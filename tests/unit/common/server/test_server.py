"""gRPC ignores options that it does not know, so a wrong name is seen nowhere else."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from services.common.server.client import ClientConfig, _options
from services.common.server.server import health_options, server_options
from services.common.server.settings import StageSettings


@pytest.fixture(scope="module")
def library() -> bytes:
    return Path(str(import_module("grpc._cython.cygrpc").__file__)).read_bytes()


@pytest.mark.parametrize("name", [name for name, _ in [*server_options(StageSettings()), *health_options()]])
def test_grpc_knows_every_option_of_a_server(library: bytes, name: str) -> None:
    assert name.encode() + b"\0" in library


@pytest.mark.parametrize("name", [name for name, _ in _options(ClientConfig(stage="face", target="localhost:1"))])
def test_grpc_knows_every_option_of_a_client(library: bytes, name: str) -> None:
    assert name.encode() + b"\0" in library


def test_server_tolerates_client_keepalive() -> None:
    """A server bears the keepalive pings of the client."""
    server = dict(server_options(StageSettings()))
    client = dict(_options(ClientConfig(stage="face", target="localhost:1")))
    assert server["grpc.http2.min_ping_interval_without_data_ms"] < int(client["grpc.keepalive_time_ms"])
