"""Callers that send half a message, or only watch, take little memory for little time, and keep no other caller out."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.server.client import ClientConfig, StageClient
from services.common.server.health import REQUEST_S
from services.common.server.server import FIRST_MESSAGES_BYTES, MAX_CALLS_CONNECTIONS, health_options
from tests.contract.server.conftest import SERVICE
from tests.contract.server.helpers import ONCE, SERVING, process_of, raw
from tests.contract.server.http2 import HalfSender, close_all
from tests.refusals import rpc_refused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs the addresses 127.0.0.2 and so on")

MIB = 1 << 20
TOKEN = "token-of-the-gateway"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
MOST_GROWTH = 64 * MIB
# Largest message of the server, and what gRPC takes of a call before the server reads.
MESSAGE, UNREAD = 16 * MIB, 64 << 10

STAGE = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import SERVICE, echo_handlers
from services.common.server.process import run_stage
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings, load_settings

async def behave(message):
    return message

def build(settings):
    return StageServer("echo", settings, services=[SERVICE],
                       register=lambda server: server.add_generic_rpc_handlers([echo_handlers(behave)]))

raise SystemExit(run_stage(load_settings(StageSettings), "echo", build))
"""


@dataclass
class Stage:
    """A stage in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    plain: str
    token_file: Path

    @property
    def resident(self) -> int:
        """Resident memory, bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def client(self, **config: Any) -> StageClient:
        """A client with a valid token, which sends calls to a server that serves."""
        chosen = {"target": self.address, "auth_token_file": self.token_file, "only_serving": True, **config}
        return StageClient(ClientConfig(stage="echo", **chosen))


@pytest.fixture
async def stage(tmp_path: Path, free_port: int, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A stage that asks for a token. The parameter has further variables of the stage's environment."""
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    environment = {
        "DUBSTAGE_AUTH_TOKEN_FILE": str(file),
        "DUBSTAGE_HEALTH_PORT": str(free_port),
        "DUBSTAGE_MAX_IDLE_S": "4",
        "DUBSTAGE_LOG_LEVEL": "error",
        **getattr(request, "param", {}),
    }
    with process_of(STAGE, **environment) as process:
        address = (await asyncio.to_thread(process.stdout.readline)).split()[-1]
        stage = Stage(process, address, f"127.0.0.1:{free_port}", file)
        async with stage.client() as client:
            await serve_one(client)
        yield stage


async def serve_one(client: StageClient) -> None:
    """Call a server: one message whole, and a stream."""
    assert await client.unary(raw(SERVICE, "Unary"), b"x", policy=ONCE, timeout_s=20) == b"x"

    async def messages() -> AsyncIterator[bytes]:
        yield b"a"
        yield bytes(MIB)

    replies = client.connection.stream(raw(SERVICE, "Stream"), messages(), timeout_s=20)
    assert [len(reply) async for reply in replies] == [5, 1, MIB]


@asynccontextmanager
async def senders_of(stage: Stage, *sources: str, address: str = "") -> AsyncIterator[list[HalfSender]]:
    """Connections from some addresses of this machine."""
    senders = [await HalfSender.connect(address or stage.address, source=source) for source in sources]
    try:
        yield senders
    finally:
        await close_all(senders)


async def flood(stage: Stage, senders: list[HalfSender], seconds: float, *, calls: bool = True) -> int:
    """Send until all calls are ended, or for some time, while a client with a token calls if `calls`.

    Return how much the memory of the stage grew at most, bytes.
    """
    before = most = stage.resident
    sending = asyncio.gather(*(sender.send(seconds) for sender in senders))
    async with stage.client() as client:
        while not sending.done():
            if calls:
                await serve_one(client)
            most = max(most, stage.resident)
            await asyncio.sleep(0.05)
    await sending
    return max(most, stage.resident) - before


async def check_while(sending: Awaitable[Any], stage: Stage, address: str, most: int) -> None:
    """Ask for the health at an address until all is sent. Meanwhile the stage takes no more than some memory, bytes."""
    done = asyncio.ensure_future(sending)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while not done.done():
            assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == SERVING
            assert stage.resident < most
            await asyncio.sleep(0.1)


async def until_freed(stage: Stage, most: int) -> None:
    async with asyncio.timeout(20):
        while stage.resident > most:  # noqa: ASYNC110 - the memory of another process
            await asyncio.sleep(0.1)


async def test_half_sent_checks_without_token(stage: Stage) -> None:
    """Half sent health checks without a token take no memory and are ended."""
    async with senders_of(stage, "127.0.0.2") as (sender,):
        calls = {sender.call(CHECK, num_bytes=MESSAGE) for _ in range(40)}
        assert await flood(stage, [sender], 60) < MOST_GROWTH
        assert sender.ended == calls


@pytest.mark.long
@pytest.mark.parametrize("stage", [{"DUBSTAGE_AUTH_TOKEN_FILE": ""}], indirect=True)
async def test_half_sent_checks_take_turns(stage: Stage) -> None:
    """Half sent health checks of a stage without tokens take turns and are ended."""
    async with senders_of(stage, "127.0.0.2", "127.0.0.3") as senders:
        for sender in senders:
            for _ in range(40):
                sender.call(CHECK, num_bytes=MESSAGE)
        sending = asyncio.gather(*(sender.send(25) for sender in senders))
        # Two of each address are read at the same time.
        await check_while(sending, stage, stage.address, stage.resident + 4 * MESSAGE + MOST_GROWTH)
        assert [len(sender.ended) for sender in senders] == [40, 40]


@pytest.mark.parametrize("method", ["Unary", "Stream"])
async def test_thousand_half_sent_calls(stage: Stage, method: str) -> None:
    """A thousand half sent calls without a token take little memory and are ended."""
    async with senders_of(stage, *["127.0.0.2"] * 8) as senders:
        for sender in senders:
            for _ in range(125):
                sender.call(f"/{SERVICE}/{method}", num_bytes=MESSAGE)
        # All may have sent what gRPC takes before the server reads, before the first refusal leaves.
        assert await flood(stage, senders, 120) < 1000 * UNREAD + MOST_GROWTH / 2
        assert [len(sender.ended) for sender in senders] == [125] * 8


@pytest.mark.long
async def test_half_sent_calls_with_token(stage: Stage) -> None:
    """Half sent calls with a token are ended and give their memory back."""
    before = stage.resident
    # As many as run at the same time, and more.
    async with senders_of(stage, "127.0.0.2") as (sender,):
        for _ in range(8):
            sender.call(f"/{SERVICE}/Unary", num_bytes=MESSAGE, token=TOKEN)
        for _ in range(100):
            sender.call(REFLECTION, num_bytes=MESSAGE, token=TOKEN)
            sender.call(CHECK, num_bytes=MESSAGE, token=TOKEN)
        # For one address, 4 messages (half of the budget) and 2 health checks are read at the same time, and gRPC takes the first
        # bytes of the other calls.
        assert await flood(stage, [sender], 60, calls=False) < 6 * MESSAGE + 208 * UNREAD + MOST_GROWTH
        assert len(sender.ended) == 208
    async with stage.client() as client:
        await serve_one(client)
        await until_freed(stage, before + MOST_GROWTH)


# As many calls run at once in a gateway as in no stage.
@pytest.mark.long
@pytest.mark.parametrize("stage", [{"DUBSTAGE_MAX_CONCURRENT_RPCS": "64"}], indirect=True)
@pytest.mark.parametrize("method", ["Unary", "Stream"])
async def test_tokens_share_budget(stage: Stage, method: str) -> None:
    """Half sent messages of callers with a token share a budget and give it back."""
    sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
    async with senders_of(stage, *sources) as senders:
        for sender in senders:
            for _ in range(16):
                sender.call(f"/{SERVICE}/{method}", num_bytes=MESSAGE, token=TOKEN)
        before = stage.resident
        assert await flood(stage, senders, 8, calls=False) < FIRST_MESSAGES_BYTES + 64 * UNREAD + MOST_GROWTH
        assert sum(len(sender.ended) for sender in senders) > 0
    async with stage.client() as client:
        await serve_one(client)
    await until_freed(stage, before + MOST_GROWTH)


async def test_address_has_half(stage: Stage) -> None:
    """Half sent messages of one address leave places to other addresses."""
    async with senders_of(stage, "127.0.0.2") as (sender,):
        for _ in range(6):
            sender.call(f"/{SERVICE}/Unary", num_bytes=MESSAGE, token=TOKEN)
        sending = asyncio.create_task(sender.send(3))
        await asyncio.sleep(0.5)
        async with stage.client() as client:
            await serve_one(client)
        # No call was ended to make room.
        assert not sender.ended
        await sending


@pytest.mark.parametrize("stage", [{"DUBSTAGE_MAX_MEMORY_BYTES": str(512 * MIB), "DUBSTAGE_MAX_IDLE_S": "60"}], indirect=True)
async def test_small_pieces_are_ended(stage: Stage) -> None:
    """A message whose pieces keep large buffers is ended before the memory is full."""
    async with senders_of(stage, "127.0.0.2") as (sender,):
        sender.call(f"/{SERVICE}/Unary", num_bytes=MESSAGE, token=TOKEN)
        # gRPC keeps the buffer that a piece arrived in. The filling has no place in any window.
        sender.piece_bytes, sender.filling_bytes = 32, 8000
        await sender.send(40)
        assert sender.ended
    await until_freed(stage, 256 * MIB)


async def test_connections_are_bounded() -> None:
    """A server takes a bounded number of connections."""
    options = dict(health_options())
    assert options["grpc.max_allowed_incoming_connections"] == MAX_CALLS_CONNECTIONS
    server = grpc.aio.server(options=list({**options, "grpc.max_allowed_incoming_connections": 2}.items()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    senders = [await HalfSender.connect(f"127.0.0.1:{port}") for _ in range(2)]
    try:
        with pytest.raises(ConnectionRefusedError):
            await HalfSender.connect(f"127.0.0.1:{port}")
        await senders.pop().close()
        # The server notices a closed connection a little later.
        async with asyncio.timeout(30):
            while len(senders) < 2:
                with contextlib.suppress(ConnectionRefusedError):
                    senders.append(await HalfSender.connect(f"127.0.0.1:{port}"))
    finally:
        await close_all(senders)
        await server.stop(None)


async def test_half_sent_plain_port_checks(stage: Stage) -> None:
    """Half sent checks of the plain port are ended in time and probes are answered."""
    async with senders_of(stage, *["127.0.0.2"] * 4, address=stage.plain) as senders:
        for sender in senders:
            for path in (CHECK, WATCH):
                for _ in range(16):
                    sender.call(path, num_bytes=4000)
                    # Longer than any request of this port: refused as soon as the length is there.
                    sender.call(path, num_bytes=MESSAGE)
        begun = time.monotonic()
        sending = asyncio.gather(*(sender.send(25) for sender in senders))
        await check_while(sending, stage, stage.plain, stage.resident + MOST_GROWTH)
        assert [len(sender.ended) for sender in senders] == [64] * 4
        assert time.monotonic() - begun > REQUEST_S


async def test_watches_without_token_spare_clients(stage: Stage) -> None:
    """A thousand watches without a token do not lock out a client with a token."""
    async with senders_of(stage, *(f"127.0.0.{number}" for number in (2, 3, 4, 5) for _ in range(2))) as senders:
        for sender in senders:
            for _ in range(128):
                sender.whole_call(WATCH)
        await asyncio.gather(*(sender.send(1) for sender in senders))
        async with stage.client() as client:
            await client.wait_until_reachable(20)
            await serve_one(client)
        async with grpc.aio.insecure_channel(stage.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            with rpc_refused("DUBSTAGE_HEALTH_PORT", code="UNAUTHENTICATED"):
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
            # A client that watches health and sends no token with the watch goes on without health.
            with rpc_refused(code="UNIMPLEMENTED"):
                await stub.Watch(health_pb2.HealthCheckRequest(), timeout=20).read()
