"""The render stage under concurrent streams, in its process and on Triton: `python -m research.bench.concurrency [--out FILE]`.

Each backend runs in a server process of its own with the same network and the same threads. N streams keep WINDOW frames underway
each, without a pause, so the stage is under full load. Meanwhile another process checks the stage's health. Clients, stage and the
model server share one machine here, and do not in a cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import numpy as np
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dubstage.client import render as render_client
from dubstage.client.render import Conditions
from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1.render_pb2_grpc import RenderServiceStub
from research.bench.runs import rows_of, table, write_json
from research.bench.triton import TritonProcess
from services.common.errors import BackendUnavailableError
from services.common.face.crops import BOX_SIZE
from services.common.stderr import log_lines_on_stderr
from services.render.backends.base import Device
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.triton.repository import RepositorySpec, write_repository
from services.render.types import Precision

if TYPE_CHECKING:
    from dubstage.render.v1.render_pb2_grpc import RenderServiceAsyncStub


STREAMS: Final = (1, 4, 16)
WINDOW: Final = 4
"""Frames that a stream keeps underway."""
IN_PROCESS: Final = "in the process"
ON_TRITON: Final = "triton"
SHARED_MEMORY: Final = "triton, shared memory"

_SECONDS: Final = 6.0
_TRITON_BATCH: Final = 16
_SETTLE_S: Final = 0.5
_START_S: Final = 60.0
_HEALTH_PAUSE_S: Final = 0.01
_HEALTH_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ConcurrentTimes:
    """One row: a backend under a number of streams. Percentiles are over all frames of all streams.

    Attributes:
        backend: process that computes the network, and how arrays get there.
        streams: streams at once.
        frames_per_second: frames of all streams together per second.
        p50_ms, p95_ms, p99_ms: time from sending a frame to receiving its picture, behind WINDOW - 1 frames of its stream,
            milliseconds.
        health_p50_ms, health_p99_ms: time of the health checks meanwhile, milliseconds.
        cpu_ms_per_frame: processor time of the stage, of Triton and of its models together per frame, milliseconds.
    """

    backend: str
    streams: int
    frames_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    health_p50_ms: float
    health_p99_ms: float
    cpu_ms_per_frame: float


@dataclass(slots=True)
class _Answers:
    """Times at which pictures came back, and their latencies, seconds."""

    at: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


def measure_concurrency(work: Path, seconds: float = _SECONDS, device: Device = "cpu") -> tuple[ConcurrentTimes, ...]:
    """Measure all backends, or only the backend in the process if no tritonserver is installed.

    Args:
        work: folder for logs and the model repository.
        seconds: measured time of each row, seconds.
        device: device of the network.
    """
    at_once = os.cpu_count() or 1
    rows = _rows(IN_PROCESS, work, {"DUBSTAGE_WORKER_THREADS": str(min(8, at_once)), **settings_of(device)}, seconds)
    spec = RepositorySpec(instances=at_once)
    if device == "cuda":
        spec = RepositorySpec(device=device, precision=Precision.FLOAT32, max_batch_size=_TRITON_BATCH)
    write_repository(work / "models", WEIGHTS_FOLDER, spec)
    try:
        triton = TritonProcess(work / "models", work / "triton.log", start_timeout_s=_START_S)
    except BackendUnavailableError as error:
        print(error.message, file=sys.stderr)
        return rows
    with triton:
        for name, shared_memory in ((ON_TRITON, "false"), (SHARED_MEMORY, "true")):
            environment = {
                "DUBSTAGE_BACKEND": "triton",
                "DUBSTAGE_TRITON_URL": triton.url,
                "DUBSTAGE_TRITON_SHARED_MEMORY": shared_memory,
            }
            if device == "cuda":
                environment["DUBSTAGE_PRECISION"] = "float32"
            rows += _rows(name, work, environment, seconds, [triton.pid])
    return rows


def settings_of(device: Device) -> dict[str, str]:
    """Return the settings of a render stage that computes on a device in its own process."""
    if device == "cpu":
        return {"DUBSTAGE_DEVICE": device}
    return {"DUBSTAGE_DEVICE": device, "DUBSTAGE_BACKEND": "onnxruntime", "DUBSTAGE_PRECISION": "float32"}


def _rows(
    name: str, work: Path, environment: dict[str, str], seconds: float, servers: Sequence[int] = ()
) -> tuple[ConcurrentTimes, ...]:
    with render_stage(work, environment) as (address, stage):
        return tuple(asyncio.run(under_load(name, address, streams, seconds, [stage, *servers])) for streams in STREAMS)


@contextmanager
def render_stage(work: Path, environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run a render stage in a process of its own; yield HOST:PORT and the process's id."""
    ready = work / "render.address"
    ready.unlink(missing_ok=True)
    settings = {
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_READY_FILE": str(ready),
        "DUBSTAGE_ARTEFACTS_URL": str(work / "artefacts"),
        "DUBSTAGE_COMPUTE_THREADS": "1",
        "DUBSTAGE_MAX_CONCURRENT_RPCS": str(max(STREAMS)),
        "DUBSTAGE_DRAIN_GRACE_S": "1",
        **environment,
    }
    with ExitStack() as stack:
        log = stack.enter_context((work / "render.log").open("ab"))
        command = [sys.executable, "-m", "services.render"]
        stage = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **settings})
        try:
            deadline = time.monotonic() + _START_S
            while not ready.is_file():
                if stage.poll() is not None or time.monotonic() > deadline:
                    raise BackendUnavailableError(f"the render stage did not start: {work / 'render.log'}")
                time.sleep(0.05)
            yield ready.read_text(encoding="ascii").strip(), stage.pid
        finally:
            stage.terminate()
            stage.wait()


async def under_load(name: str, address: str, streams: int, seconds: float, processes: Sequence[int] = ()) -> ConcurrentTimes:
    """Load a stage with a number of streams, and measure one row.

    Args:
        address: HOST:PORT of the stage.
        streams: streams at once.
        seconds: measured time, seconds.
        processes: ids of processes whose processor time counts, together with that of their children.
    """
    stop, answers = asyncio.Event(), _Answers()
    # Each stream has a connection of its own, as streams of several gateways have.
    async with asyncio.TaskGroup() as group:
        for seed in range(streams):
            group.create_task(_stream(address, seed, stop, answers))
        await asyncio.sleep(_SETTLE_S)
        begin, cpu_s = time.perf_counter(), _cpu_s(processes)
        health = await _health_while(address, seconds)
        cpu_s, end = _cpu_s(processes) - cpu_s, time.perf_counter()
        stop.set()
    took = [1000.0 * duration for at, duration in zip(answers.at, answers.took, strict=True) if begin <= at <= end]
    return ConcurrentTimes(
        name,
        streams,
        len(took) / (end - begin),
        _percentile(took, 50),
        _percentile(took, 95),
        _percentile(took, 99),
        _percentile(health, 50),
        _percentile(health, 99),
        1000.0 * cpu_s / max(1, len(took)),
    )


def _cpu_s(processes: Sequence[int]) -> float:
    """Return the user and system time of process trees so far, seconds."""
    total = 0.0
    for root in map(psutil.Process, processes):
        for member in (root, *root.children(recursive=True)):
            times = member.cpu_times()
            total += times.user + times.system
    return total


async def _stream(address: str, seed: int, stop: asyncio.Event, answers: _Answers) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: RenderServiceAsyncStub = RenderServiceStub(channel)
        call = stub.Render()
        await call.write(pb.RenderRequest(config=pb.RenderConfig(model="ugc")))
        message, room, sent = _message(seed), asyncio.Semaphore(WINDOW), dict[int, float]()

        async def send() -> None:
            index = 0
            while not stop.is_set():
                await room.acquire()
                message.frame.frame_index = index
                sent[index] = time.perf_counter()
                await call.write(message)
                index += 1
            await call.done_writing()

        sender = asyncio.create_task(send())
        async for answer in call:
            now = time.perf_counter()
            answers.at.append(now)
            answers.took.append(now - sent.pop(answer.frame_index))
            room.release()
        await sender


def _message(seed: int) -> pb.RenderRequest:
    """Return a request with random pictures. The content of a picture does not change the time."""
    rng = np.random.default_rng(seed)
    background, texture = rng.integers(0, 256, (2, BOX_SIZE, BOX_SIZE, 3), dtype=np.uint8)
    mask = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    mask[30:150, 20:140] = 255
    landmarks = rng.uniform(20.0, 140.0, (59, 2)).astype(np.float32)
    inputs = Conditions(frame_index=0, background=background, mask=mask, texture=texture, box_landmarks=landmarks)
    return render_client.render.requests(model="").item(inputs)


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else 0.0


def check_health(address: str, seconds: float) -> list[float]:
    """Check the health of a server for some seconds, one check after the other; return the milliseconds of each check.

    Raises:
        RuntimeError: an answer was not SERVING, or there is no server.
    """
    took: list[float] = []
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S)  # connects
            end = time.perf_counter() + seconds
            while (begun := time.perf_counter()) < end:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S)
                took.append(1000.0 * (time.perf_counter() - begun))
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    raise RuntimeError(f"health of {address} is {answer.status}")
                time.sleep(_HEALTH_PAUSE_S)
        except grpc.RpcError as error:
            raise RuntimeError(f"health of {address}: {error}") from None
    return took


async def _health_while(address: str, seconds: float) -> list[float]:
    """Check in a process of its own, as a kubelet does: the work of the clients in this interpreter must not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return await asyncio.get_running_loop().run_in_executor(process, check_health, address, seconds)


def main() -> None:
    """Run the command line: measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.concurrency", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="measured time of each row, seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dubstage-bench-") as work:
        rows = rows_of(measure_concurrency(Path(work), options.seconds))
    print(table(rows))
    if options.out is not None:
        write_json(options.out, {"render_concurrency": rows})


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        main()
