"""Watchers of a real server's health, on the port of its calls and on its plain port."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.server.health import MAX_NAME_BYTES, MAX_WATCHES_OF_HOST
from services.common.server.server import StageServer
from tests.contract.server.helpers import NOT_SERVING, SERVING, answer
from tests.refusals import rpc_refused

TIMEOUT_S = 60
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
# Watches of one connection. The plain port has at most 64.
WATCHES = 32
both_ports = pytest.mark.parametrize("port", ["calls", "plain"])


@dataclass
class Stranger:
    """Client with connections of its own and without a token."""

    address: str
    channels: list[Any] = field(default_factory=list)

    def stub(self) -> Any:
        """Return a stub with a new connection."""
        self.channels.append(grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]))
        return health_pb2_grpc.HealthStub(self.channels[-1])


@dataclass
class Ports:
    """Both ports of one server."""

    server: StageServer
    plain: str
    strangers: list[Stranger] = field(default_factory=list)

    def stranger(self, port: str) -> Stranger:
        self.strangers.append(Stranger(self.plain if port == "plain" else self.server.address))
        return self.strangers[-1]


@pytest.fixture
def may_serve() -> list[bool]:
    """Whether the stage can compute, for tests to change."""
    return [True]


@pytest.fixture
async def ports(echo: Any, free_port: int, may_serve: list[bool]) -> AsyncIterator[Ports]:
    server = await echo.serve(answer, warm=False, is_serving=lambda: may_serve[0], health_port=free_port)
    both = Ports(server, f"127.0.0.1:{free_port}")
    yield both
    for stranger in both.strangers:
        for channel in stranger.channels:
            await channel.close()


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def begin(stub: Any, service: str = "") -> tuple[Any, int]:
    """Watch, and return the call with the first status."""
    call = stub.Watch(request(service), timeout=TIMEOUT_S)
    return call, (await call.read()).status


async def leave(stub: Any, call: Any) -> None:
    """End a watch, and return when the server knows."""
    call.cancel()
    # On the same connection, the server reads the end of the watch first.
    await stub.Check(request(), timeout=TIMEOUT_S)


@both_ports
async def test_watch_after_leaver(ports: Ports, port: str, may_serve: list[bool]) -> None:
    """A watcher sees the end of the warm-up, each change and the drain, though other watchers left."""

    async def come_and_leave() -> None:
        stub = ports.stranger(port).stub()
        await leave(stub, (await begin(stub))[0])

    stays, status = await begin(ports.stranger(port).stub())
    assert status == NOT_SERVING
    await come_and_leave()
    await ports.server.warm_up()
    assert (await stays.read()).status == SERVING
    may_serve[0] = False
    assert (await stays.read()).status == NOT_SERVING
    await come_and_leave()
    may_serve[0] = True
    assert (await stays.read()).status == SERVING
    await come_and_leave()
    # gRPC drops a message that nobody reads when the connection ends.
    change = asyncio.ensure_future(stays.read())
    await ports.server.drain(grace_s=TIMEOUT_S)
    assert (await change).status == NOT_SERVING


async def test_calls_after_client_left(ports: Ports, echo: Any) -> None:
    """Calls reach a stage that serves though another client left."""
    client = echo.connect(ports.server, only_serving=True)
    stub = ports.stranger("calls").stub()
    leaves, _ = await begin(stub)
    connecting = client.stage.channel.get_state(try_to_connect=True)
    assert connecting is not grpc.ChannelConnectivity.READY
    while client.stage.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        await client.stage.channel.wait_for_state_change(client.stage.channel.get_state())
    await leave(stub, leaves)
    await ports.server.warm_up()
    await client.stage.wait_until_reachable(TIMEOUT_S)
    await client.call("Unary")
    assert client.received == [b"x"]


@both_ports
@pytest.mark.parametrize("rpc", ["Check", "Watch"])
async def test_a_long_name_is_refused(ports: Ports, port: str, rpc: str) -> None:
    stub = ports.stranger(port).stub()
    watch, status = await begin(stub, "x" * MAX_NAME_BYTES)
    assert status == SERVICE_UNKNOWN
    watch.cancel()

    async def refusal(name: str) -> grpc.aio.AioRpcError:
        ask = begin(stub, name) if rpc == "Watch" else stub.Check(request(name), timeout=TIMEOUT_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask
        return refused.value

    refused = await refusal("x" * (MAX_NAME_BYTES + 1))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(MAX_NAME_BYTES) in (refused.details() or "")
    # gRPC itself refuses what is longer than any message of the plain port.
    refused = await refusal("x" * 1_000_000)
    assert refused.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}


@both_ports
async def test_watcher_limit(ports: Ports, port: str) -> None:
    """A watcher over the limit is refused until another leaves."""
    await ports.server.warm_up()
    stranger = ports.stranger(port)
    watches: list[tuple[Any, Any]] = []
    for _ in range(MAX_WATCHES_OF_HOST // WATCHES):
        stub = stranger.stub()
        watches += [(stub, (await begin(stub))[0]) for _ in range(WATCHES)]
    late = stranger.stub()
    with rpc_refused(code="RESOURCE_EXHAUSTED"):
        await begin(late)
    # Probes ask, and the places of the other port are its own.
    assert (await late.Check(request(), timeout=TIMEOUT_S)).status == SERVING
    assert (await begin(ports.stranger("calls" if port == "plain" else "plain").stub()))[1] == SERVING
    await leave(*watches[0])
    assert (await begin(late))[1] == SERVING
