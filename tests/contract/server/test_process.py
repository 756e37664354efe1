"""A stage as a process: signals, exit codes, the end of one that is killed."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.common import errors
from tests.contract.server.helpers import ONCE, answer, eventually, process_of

STAGE = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import SERVICE, echo_handlers
from services.common.server.limits import WorkerPool
from services.common.server.process import run_stage
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings, load_settings

pool = WorkerPool(num_threads=1, max_queued=1)

def warm_up():
    if "broken" in sys.argv:
        raise KeyError("secret of the inside")
    if "slow-warm-up" in sys.argv:
        print("warming", flush=True)
        time.sleep(600)

async def behave(message):
    if message == b"slow":
        await asyncio.sleep(0.5)
    if message == b"stuck":
        await pool.run(time.sleep, 600)
    return message

def build(settings):
    return StageServer("echo", settings, services=[SERVICE], warm_up=warm_up, workers=[pool],
                       register=lambda server: server.add_generic_rpc_handlers([echo_handlers(behave)]))

raise SystemExit(run_stage(load_settings(StageSettings), "echo", build))
"""


async def listening(process: subprocess.Popen[str]) -> str:
    """Return the address that a process says it listens on."""
    line = await asyncio.to_thread(process.stdout.readline)
    assert line.startswith("dubstage echo listening on 127.0.0.1:")
    return line.split()[-1]


async def begun(echo: Any, target: str, message: bytes) -> tuple[Any, asyncio.Task[Any]]:
    """Return a client of the server at an address, and a call of the client that the server has begun to answer."""
    client = echo.connect(type("Address", (), {"address": target})())
    running = asyncio.create_task(client.call("Stream", message))
    await eventually(lambda: client.received == [b"first"])
    return client, running


async def test_sigterm_finishes_running_call(echo: Any, tmp_path: Path) -> None:
    """SIGTERM lets the running call end and the process exits with zero."""
    with process_of(STAGE, DUBSTAGE_READY_FILE=str(tmp_path / "ready")) as process:
        target = await listening(process)
        assert (tmp_path / "ready").read_text().strip() == target
        client, running = await begun(echo, target, b"slow")
        process.send_signal(signal.SIGTERM)
        await running
        assert client.received == [b"first", b"slow"]
        _, log = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert '"event": "rpc_finished"' in log
    assert "Traceback" not in log


async def test_sigterm_during_warm_up() -> None:
    """SIGTERM in mid warm up ends the process at once."""
    with process_of(STAGE, "slow-warm-up") as process:
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == "warming"
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0


async def test_busy_computation_ends_after_grace(echo: Any) -> None:
    """A computation that does not look up does not hold the process beyond the grace."""
    with process_of(STAGE, DUBSTAGE_DRAIN_GRACE_S="0.1") as process:
        _, running = await begun(echo, await listening(process), b"stuck")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(errors.BackendUnavailableError):
            await running
        await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0


async def test_unusable_port_exit_code(echo: Any) -> None:
    """A process that cannot listen says so and exits with the error's code."""
    server = await echo.serve(answer)
    with process_of(STAGE, DUBSTAGE_PORT=str(server.port)) as process:
        _, log = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == errors.InvalidRequestError.exit_code
    sentence = f"dubstage echo: the echo stage cannot listen on 127.0.0.1:{server.port}: another process listens there"
    assert [line for line in log.splitlines() if line.startswith(sentence)]
    assert "set DUBSTAGE_PORT" in log
    assert '"event": "cannot_serve"' in log
    assert "Traceback" not in log


async def test_bug_exit_code_and_id() -> None:
    """An error of our own ends the process with the exit code of a bug, and its id leads to the traceback."""
    with process_of(STAGE, "broken") as process:
        _, log = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == errors.UnexpectedError.exit_code == 12
    (sentence,) = [line for line in log.splitlines() if line.startswith("dubstage echo: ")]
    (line,) = [json.loads(line) for line in log.splitlines() if line.startswith("{") and "cannot_serve" in line]
    assert line["error_id"] in sentence
    assert "secret of the inside" in line["exception"]
    assert "secret" not in sentence


async def test_killed_server_is_retryable(echo: Any) -> None:
    """A server that is killed in mid stream is an error worth trying elsewhere."""
    with process_of(STAGE) as process:
        target = await listening(process)
        client, running = await begun(echo, target, b"stuck")
        process.kill()
        with pytest.raises(errors.BackendUnavailableError, match=target):
            await running
        with pytest.raises(errors.BackendUnavailableError, match=target):
            await client.call("Unary", policy=ONCE)
