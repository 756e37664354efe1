"""Deadlines and cancellation, from both ends, on real servers."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from services.common import errors
from services.common.server import call_context
from services.common.server.limits import WorkerPool
from tests.contract.server.helpers import ONCE, answer, eventually, outlasted, raw, sent


@pytest.mark.parametrize("kind", ["Unary", "Stream"])
async def test_a_call_without_a_deadline_gets_the_servers(echo: Any, kind: str) -> None:
    client = echo.connect(await echo.serve(lambda _: asyncio.Event().wait(), default_deadline_s=0.1))
    channel = client.stage.channel
    answers: list[bytes] = []

    async def ask() -> None:
        if kind == "Unary":
            answers.append(await channel.unary_unary(f"/{echo.service}/Unary")(b""))
        else:
            async for answer in channel.unary_stream(f"/{echo.service}/Download")(b""):
                answers.append(answer)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask()
    # The first answer of the stream may be too late, on a machine that pauses.
    assert answers in ([], [b"first"] if kind == "Stream" else [])
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "0.1 s" in (caught.value.details() or "")


async def test_deadline_cut_to_server_maximum(echo: Any) -> None:
    """A caller's long deadline is cut to the server's longest."""
    client = echo.connect(await echo.serve(lambda _: asyncio.Event().wait(), default_deadline_s=0.1, max_deadline_s=0.1))
    with pytest.raises(errors.StageDeadlineExceededError):
        await client.call("Unary", timeout_s=60, policy=ONCE)


async def test_a_callers_own_deadline_ends_the_work(echo: Any) -> None:
    left: list[float | None] = []
    ended: list[bool] = []

    async def wait(_: bytes) -> bytes:
        left.append(call_context.remaining_s())
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return b""

    client = echo.connect(await echo.serve(wait))
    timeout_s = await outlasted(client, begun=lambda: bool(left))
    assert left[0] is not None
    # gRPC rounds a deadline up by some milliseconds on its way.
    assert 0 <= left[0] < timeout_s + 0.3
    await eventually(lambda: len(ended) == len(left))


async def test_passed_deadline_is_no_cancellation(echo: Any) -> None:
    """A call that its caller's deadline ended is counted as such, and a call that its caller cancelled is not."""
    begun = asyncio.Event()

    async def wait(_: bytes) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    server = await echo.serve(wait)
    client = echo.connect(server)

    def ended(code: str) -> float:
        return float(server.metrics.rpcs.labels("echo", f"{echo.service}/Unary", code)._value.get())

    # gRPC sends a deadline as 1 to 8 digits and a unit, rounded up.
    with pytest.raises(errors.StageDeadlineExceededError):
        await client.call("Unary", timeout_s=3.3, policy=ONCE)
    assert begun.is_set()
    await eventually(lambda: ended("DEADLINE_EXCEEDED") + ended("CANCELLED") >= 1)
    assert ended("CANCELLED") == 0
    begun.clear()
    task = asyncio.create_task(client.call("Unary", timeout_s=60, policy=ONCE))
    await begun.wait()
    task.cancel()
    await eventually(lambda: ended("CANCELLED") == 1)


async def test_handler_timeout_is_not_deadline(echo: Any) -> None:
    """A timeout inside of a handler is not taken for the call's deadline."""

    async def fail(_: bytes) -> bytes:
        raise TimeoutError("of some other thing")

    client = echo.connect(await echo.serve(fail))
    with pytest.raises(errors.UnexpectedError):
        await client.call("Unary", policy=ONCE)


async def test_cancelled_call_stops_thread(echo: Any) -> None:
    pool = WorkerPool(num_threads=1, max_queued=1)
    begun, stopped = threading.Event(), threading.Event()

    def work() -> bytes:
        begun.set()
        try:
            for _ in range(2000):
                call_context.check_not_cancelled()
                time.sleep(0.005)
        except errors.WorkCancelledError:
            stopped.set()
            raise
        return b""

    client = echo.connect(await echo.serve(lambda _: pool.run(work)))
    task = asyncio.create_task(client.call("Unary"))
    await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 60)
    await eventually(lambda: pool.pending == 0)
    pool.shutdown()


async def test_early_consumer_stop_ends_stream(echo: Any) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    client = echo.connect(await echo.serve(wait))
    method = raw(echo.service, "Download")
    async with contextlib.aclosing(client.stage.connection.download(method, b"")) as responses:
        async for response in responses:
            assert response == b"first"
            await asyncio.wait_for(begun.wait(), 60)
            break
    await asyncio.wait_for(ended.wait(), 60)


async def test_request_iterator_error_passes_through(echo: Any) -> None:
    """A failure of the request's own iterator comes out as it is."""

    async def requests() -> Any:
        yield b"one"
        raise errors.MediaUnsupportedError("the speech file is cut off", field="audio")

    client = echo.connect(await echo.serve(answer))
    with pytest.raises(errors.MediaUnsupportedError, match="cut off"):
        async for _ in client.stage.connection.stream(raw(echo.service, "Stream"), requests()):
            pass
    with pytest.raises(errors.MediaUnsupportedError, match="cut off"):
        await client.stage.upload(raw(echo.service, "Upload"), requests)


async def test_leaving_caller_is_no_error(echo: Any) -> None:
    """A caller who leaves while an answer waits is no error of the server."""
    served: list[call_context.Call] = []

    async def large(_: bytes) -> bytes:
        call = call_context.current_call()
        assert call is not None
        served.append(call)
        return bytes(1 << 20)

    def answer_waits() -> bool:
        # The connection takes no more. A write that need not wait takes less than a millisecond.
        return bool(served) and served[-1].offered_at is not None and time.monotonic() - served[-1].offered_at > 0.05

    server = await echo.serve(large)

    def counted(code: str) -> float | None:
        labels = {"stage": server.stage, "rpc": f"{echo.service}/Stream", "code": code}
        return server.metrics.registry.get_sample_value("dubstage_rpcs_total", labels)

    client = echo.connect(server)
    with capture_logs() as lines:
        for number in range(1, 11):
            served.clear()
            running = client.method("Stream")(sent(b"x", 1000))
            assert await running.read() == b"first"
            await eventually(answer_waits)
            running.cancel()
            await eventually(lambda number=number: sum(line["event"] == "rpc_finished" for line in lines) == number)
    assert (counted("CANCELLED"), counted("INTERNAL")) == (10, None)
    assert {line["log_level"] for line in lines} == {"info"}
