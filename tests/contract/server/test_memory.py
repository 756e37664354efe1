"""The memory that one call may take is bounded, and work in threads notices that its call is over."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.common import errors
from services.common.server import call_context, watchdog
from services.common.server.limits import WorkerPool
from services.common.server.resources import resident_bytes
from tests.contract.server.helpers import ONCE, eventually, outlasted, process_of

MIB = 1 << 20
KINDS = ["Unary", "Download", "Upload", "Stream"]
# The server is a process of its own: the process of the tests is large, and its memory changes for reasons of other tests.
STAGE = """
import asyncio, sys, threading, time
sys.path.insert(0, sys.argv[1])
from conftest import SERVICE, echo_handlers
from services.common.server import call_context
from services.common.server.limits import WorkerPool
from services.common.server.resources import resident_bytes
from services.common.server.process import run_stage
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings, load_settings

MIB = 1 << 20
pool = WorkerPool(num_threads=2, max_queued=8)
ended = threading.Event()

def hoard():
    held = []
    try:
        while True:
            call_context.check_not_cancelled()
            held.append(bytearray(b"x" * (8 * MIB)))
            time.sleep(0.002)
    finally:
        held.clear()
        ended.set()

def modest():
    print("modest", flush=True)
    ended.wait(60)
    time.sleep(0.5)

async def behave(message):
    await pool.run(hoard if message == b"hoard" else modest)
    return message

def build(settings):
    settings = settings.model_copy(update={"max_memory_bytes": resident_bytes() + 256 * MIB})
    return StageServer("echo", settings, services=[SERVICE], workers=[pool],
                       register=lambda server: server.add_generic_rpc_handlers([echo_handlers(behave)]))

raise SystemExit(run_stage(load_settings(StageSettings), "echo", build))
"""


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(num_threads=2, max_queued=8, name="compute")
    yield pool
    pool.shutdown()


@pytest.mark.parametrize("kind", KINDS)
async def test_memory_limit_per_call(echo: Any, kind: str) -> None:
    """A call that collects more than its limit learns what it collected and how much."""

    async def collect(message: bytes) -> bytes:
        call_context.charge(MIB)
        call_context.charge(3 * MIB // 2)
        return message

    client = echo.connect(await echo.serve(collect, max_call_memory_bytes=2 * MIB))
    with pytest.raises(errors.CallTooLargeError) as caught:
        await client.call(kind, policy=ONCE)
    assert "would take 2.5 MiB of memory, and one call may hold 2.0 MiB" in caught.value.message
    assert "DUBSTAGE_MAX_CALL_MEMORY_BYTES" in caught.value.message
    assert not caught.value.retryable


async def test_memory_not_charged_twice(echo: Any, pool: WorkerPool) -> None:
    """Memory that one call collected is not charged to the next call."""

    async def collect(message: bytes) -> bytes:
        await pool.run(call_context.charge, MIB)
        return message

    client = echo.connect(await echo.serve(collect, max_call_memory_bytes=2 * MIB, workers=[pool]))
    for _ in range(4):
        await client.call("Unary", policy=ONCE)
    with pytest.raises(errors.CallTooLargeError):
        await client.call("Upload", times=3, policy=ONCE)


def test_outside_of_a_call_nothing_is_charged() -> None:
    call_context.charge(1 << 60)


@pytest.mark.skipif(resident_bytes() is None, reason="the platform does not say how much memory a process has")
async def test_largest_call_ends_first(echo: Any) -> None:
    """The call that takes most memory is ended and the others go on."""
    with process_of(STAGE) as process:
        target = (await asyncio.to_thread(process.stdout.readline)).split()[-1]
        address = type("Address", (), {"address": target})()
        modest, greedy = echo.connect(address), echo.connect(address)
        running = asyncio.create_task(modest.call("Unary", b"modest", policy=ONCE))
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == "modest"
        with pytest.raises(errors.CallTooLargeError, match=r"was ended: the stage takes .* MiB") as caught:
            await greedy.call("Unary", b"hoard", policy=ONCE)
        await running
    assert caught.value.stage == "echo"
    assert modest.received == [b"modest"]


async def test_cancelled_computation_does_not_start(echo: Any) -> None:
    """A computation whose call is over does not begin."""
    narrow = WorkerPool(num_threads=1, max_queued=8, name="narrow")
    ran: list[bytes] = []
    free = threading.Event()

    async def behave(message: bytes) -> bytes:
        # Shielded: the wait ends with its call, the computation stays in the queue.
        work = narrow.run(free.wait) if message == b"first" else narrow.run(ran.append, message)
        await asyncio.shield(asyncio.ensure_future(work))
        return message

    server = await echo.serve(behave, workers=[narrow])
    first, second = echo.connect(server), echo.connect(server)
    running = asyncio.create_task(first.call("Unary", b"first", timeout_s=60, policy=ONCE))
    await eventually(lambda: narrow.load.running == 1)
    with pytest.raises(errors.StageDeadlineExceededError):
        await second.call("Unary", b"second", timeout_s=0.2, policy=ONCE)
    await eventually(lambda: server._admission.load.running == 1)
    free.set()
    await running
    await eventually(lambda: narrow.pending == 0)
    assert ran == []
    narrow.shutdown()


async def test_outliving_computation_logged_once(echo: Any, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "OUTLIVED_AFTER_S", 0.1)
    free = threading.Event()

    async def behave(message: bytes) -> bytes:
        await pool.run(free.wait)
        return message

    server = await echo.serve(behave, workers=[pool])
    with capture_logs() as lines:
        await outlasted(echo.connect(server), begun=lambda: pool.load.running == 1)
        await eventually(lambda: server.metrics.outlived._value.get() == 1)
        await asyncio.sleep(3 * watchdog.CHECK_INTERVAL_S)
    free.set()
    told = [line for line in lines if line["event"] == "computation_outlives_its_call"]
    assert [(line["rpc"], line["log_level"]) for line in told] == [("dubstage.echo.v1.EchoService/Unary", "warning")]
