"""Several servers behind one name: how calls are shared, and what becomes of them when one comes, goes or gets old."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from services.common import errors
from services.common.server.client import ClientConfig, StageClient
from services.common.server.retries import RetryPolicy
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings
from tests.contract.server.helpers import ONCE, eventually


def both(*servers: StageServer) -> Any:
    """Server for `echo.connect`, with the addresses of several."""
    return type("Replicas", (), {"address": "ipv4:" + ",".join(server.address for server in servers)})()


def naming(name: bytes) -> Any:
    async def answer(_: bytes) -> bytes:
        return name

    return answer


def late_until(may_end: asyncio.Event) -> Any:
    async def wait(message: bytes) -> bytes:
        if message == b"late":
            await may_end.wait()
        return message

    return wait


async def answered(client: Any, count: int, policy: RetryPolicy | None = ONCE) -> list[bytes]:
    before = len(client.received)
    for _ in range(count):
        await client.call("Unary", policy=policy)
    return list(client.received[before:])


async def connected_to_both(client: Any) -> None:
    async with asyncio.timeout(60):
        while len(set(await answered(client, 4))) < 2:  # noqa: ASYNC110 - gRPC connects when it likes
            await asyncio.sleep(0.01)


async def test_calls_are_shared_among_the_replicas_in_turn(echo: Any) -> None:
    client = echo.connect(both(await echo.serve(naming(b"a")), await echo.serve(naming(b"b"))))
    await connected_to_both(client)
    found = await answered(client, 20)
    assert found.count(b"a") == found.count(b"b") == 10


async def test_a_replica_that_warms_up_gets_no_calls(echo: Any) -> None:
    may_end = threading.Event()
    serving = await echo.serve(naming(b"serving"))
    warming = await echo.serve(naming(b"warm"), warm=False, warm_up=may_end.wait)
    client = echo.connect(both(serving, warming), only_serving=True)
    assert await answered(client, 10) == [b"serving"] * 10
    warm_up = asyncio.create_task(warming.warm_up())
    assert await answered(client, 10) == [b"serving"] * 10
    may_end.set()
    await warm_up
    await connected_to_both(client)


async def test_draining_replica_gets_no_calls(echo: Any) -> None:
    """A replica that drains gets no more calls and ends those that it has."""
    may_end = asyncio.Event()
    leaving = await echo.serve(late_until(may_end))
    staying = await echo.serve(naming(b"staying"))
    alone = echo.connect(leaving)
    running = asyncio.create_task(alone.call("Stream", b"late"))
    await eventually(lambda: alone.received == [b"first"])
    client = echo.connect(both(leaving, staying), only_serving=True)
    await client.stage.wait_until_reachable(60)
    draining = asyncio.create_task(leaving.drain(grace_s=600))
    # The client watches the health; how soon it looks is gRPC's business, and until then calls may be refused and tried again.
    async with asyncio.timeout(60):
        while await answered(client, 10, policy=None) != [b"staying"] * 10:
            pass
    assert await answered(client, 10) == [b"staying"] * 10
    assert not draining.done()
    may_end.set()
    await running
    await draining
    assert alone.received == [b"first", b"late"]


async def test_dropped_call_succeeds_elsewhere(echo: Any) -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    leaving, staying = await echo.serve(never), await echo.serve(naming(b"staying"))
    client = echo.connect(both(leaving, staying), only_serving=True)
    running: list[asyncio.Task[None]] = []
    # The channel may know one replica before the other: calls until both have some.
    while b"staying" not in client.received or len(client.received) == len(running):
        running.append(asyncio.create_task(client.call("Upload")))
        await asyncio.sleep(0.05)
    await leaving.drain(grace_s=0)
    await asyncio.gather(*running)
    assert client.received == [b"staying"] * len(running)


async def test_no_replica_names_addresses(echo: Any) -> None:
    """Without any replica that serves, the error names the addresses that it could not reach."""
    server = await echo.serve(naming(b"cold"), warm=False)
    client = echo.connect(server, only_serving=True)
    with pytest.raises(errors.BackendUnavailableError, match="echo at 127"):
        await client.call("Unary", policy=ONCE)
    with pytest.raises(errors.StageDeadlineExceededError):
        await client.stage.wait_until_reachable(0.2)


async def test_new_client_connects_at_once(echo: Any, free_port: int) -> None:
    """A new client does not wait for the next attempt of an older one."""
    gone = await echo.serve(naming(b"gone"), port=free_port)
    older = echo.connect(gone)
    await older.call("Unary")
    await gone.drain(grace_s=0)
    for _ in range(3):
        with pytest.raises(errors.BackendUnavailableError):
            await older.call("Unary", policy=ONCE)
        await asyncio.sleep(0.3)
    back = await echo.serve(naming(b"back"), port=free_port)
    assert await answered(echo.connect(back), 1) == [b"back"]


async def test_stream_outlives_connection_age(echo: Any) -> None:
    """A stream outlives the age of its connection and later calls find a new one."""
    may_end = asyncio.Event()
    server = await echo.serve(late_until(may_end), max_connection_age_s=0.3)
    client = echo.connect(server, only_serving=True)
    running = asyncio.create_task(client.call("Stream", b"late"))
    await eventually(lambda: client.received == [b"first"])
    for _ in range(8):
        await asyncio.sleep(0.2)
        await client.call("Unary", policy=ONCE)
    assert not running.done()
    may_end.set()
    await running
    assert client.received == [b"first", *[b"x"] * 8, b"late"]


def test_connection_age_exceeds_longest_call() -> None:
    """No connection is cut before the longest call may end."""
    from services.common.server.server import server_options

    options = dict(server_options(StageSettings(max_deadline_s=900.0, default_deadline_s=60.0, max_connection_age_s=2.5)))
    assert options["grpc.max_connection_age_ms"] == 2500
    assert options["grpc.max_connection_age_grace_ms"] > 900_000


async def test_token_to_several_local_addresses(tmp_path: Path) -> None:
    """A token goes to several addresses only where all are on this machine."""
    file = tmp_path / "token"
    file.write_text("secret\n")
    for target in ("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:1", "dns:///localhost:5", "localhost:5", "unix:/run/x.sock"):
        await StageClient(ClientConfig(stage="render", target=target, auth_token_file=file)).close()
    for target in ("ipv4:127.0.0.1:1,10.0.0.1:2", "ipv4:10.0.0.1:2,127.0.0.1:1", "dns:///render:5", "render:5"):
        with pytest.raises(errors.InvalidRequestError, match="plain text"):
            StageClient(ClientConfig(stage="render", target=target, auth_token_file=file))
