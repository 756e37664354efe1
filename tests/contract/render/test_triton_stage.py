"""The render stage on Triton, behind its own server: dead processes, health and metrics."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1.render_pb2_grpc import RenderServiceStub
from gateway.async_utilities import in_thread
from research.bench.triton import TritonProcess
from services.common.errors import BackendUnavailableError
from services.common.server.process import server_of
from services.common.server.server import StageServer
from services.render.__main__ import compose
from services.render.backends.base import Backend
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.settings import RenderSettings
from services.render.streams import default_state
from services.render.triton.repository import RepositorySpec, write_repository
from services.render.types import RenderFrame
from tests.contract.ports import free_port
from tests.contract.render.conftest import RESTARTS, gave_up, models_here, rendered_from_proto, stub_of
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused
from tests.unit.render.rendering import render

CONFIG = pb.RenderRequest(config=pb.RenderConfig(model="ugc"))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SLOW = """

class SlowModel(TritonPythonModel):
    def execute(self, requests):
        import time
        time.sleep(0.1)
        return super().execute(requests)


TritonPythonModel = SlowModel
"""


@pytest.fixture
def triton(shared_triton: TritonProcess) -> TritonProcess:
    return shared_triton


@asynccontextmanager
async def stage_on(triton: TritonProcess, artefacts: Path, **settings: Any) -> AsyncIterator[StageServer]:
    chosen = RenderSettings(
        **{
            "port": 0,
            "artefacts_url": str(artefacts),
            "backend": "triton",
            "triton_url": triton.url,
            "triton_timeout_s": 30.0,
            "triton_start_timeout_s": 60.0,
            # No probe comes between the inferences of a test, however long they take.
            "triton_probe_interval_s": 600.0,
            "drain_grace_s": 0.0,
            **settings,
        }
    )
    async with AsyncExitStack() as running:
        for _ in range(RESTARTS):
            try:
                server = await running.enter_async_context(server_of("render", chosen, compose(chosen)))
                break
            except BackendUnavailableError as error:
                if not gave_up(triton, error):
                    raise
                await asyncio.to_thread(triton.stop, kill=True)
                await asyncio.to_thread(triton.start)
        else:
            server = await running.enter_async_context(server_of("render", chosen, compose(chosen)))
        yield server


@asynccontextmanager
async def started_again(triton: TritonProcess) -> AsyncIterator[None]:
    """Start the server again when it ends by itself (`gave_up`), as a cluster does."""

    async def watch() -> None:
        while True:
            if psutil.Process(triton.pid).status() == psutil.STATUS_ZOMBIE:
                await in_thread(triton.stop, kill=True)
                await in_thread(triton.start)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def many(frames: list[RenderFrame], times: int) -> AsyncIterator[pb.RenderRequest]:
    yield CONFIG
    for turn in range(times):
        for frame in frames:
            message = frame_to_proto(frame)
            message.frame.frame_index = turn * len(frames) + frame.frame_index
            yield message


async def health_of(channel: grpc.aio.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)).status)


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        reached = condition()
        if await reached if asyncio.iscoroutine(reached) else reached:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"within 60 s: not {what}")


def heals(server: StageServer, outcome: str) -> float:
    return server.metrics.registry.get_sample_value("dubstage_triton_heals_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def expected(in_process: Backend, footage: list[RenderFrame]) -> list[bytes]:
    file = models_here().files["ugc"]
    return [render(in_process, file, [frame], default_state(file))[0].box.tobytes() for frame in footage]


@pytest.mark.parametrize("shared_memory", [pytest.param(False, marks=pytest.mark.long), True])
async def test_model_killed_mid_stream(triton, tmp_path, footage, expected, shared_memory) -> None:
    """A stream whose model is killed in its middle completes with the same bytes."""
    async with (
        stage_on(triton, tmp_path, triton_shared_memory=shared_memory, triton_heal_wait_s=60.0) as server,
        grpc.aio.insecure_channel(server.address) as channel,
        started_again(triton),
    ):
        stub: Any = RenderServiceStub(channel)
        answers = []
        async for response in stub.Render(many(footage, 4)):
            answers.append(rendered_from_proto(response))
            if len(answers) in {10, 60}:
                stub_of(triton).kill()
                assert await health_of(channel) == SERVING
        assert [answer.frame_index for answer in answers] == list(range(96))
        assert [answer.box.tobytes() for answer in answers] == expected * 4
        # More than two, where tritonserver took a sound process for dead while the machine paused (`gave_up`).
        assert heals(server, "healed") >= 2


async def test_restarted_server_loads_model(triton, tmp_path, footage, expected) -> None:
    """A server that is killed and started again is given its model back."""
    async with (
        stage_on(triton, tmp_path, triton_shared_memory=True, triton_heal_wait_s=60.0) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub: Any = RenderServiceStub(channel)
        answers, restart = [], None
        async for response in stub.Render(many(footage, 2)):
            answers.append(rendered_from_proto(response))
            if len(answers) == 10:
                await asyncio.to_thread(triton.stop, kill=True)
                restart = asyncio.create_task(asyncio.to_thread(triton.start))
        assert restart is not None
        await restart
        assert [answer.box.tobytes() for answer in answers] == expected * 2


async def test_idle_model_death_is_healed(triton: TritonProcess, tmp_path: Path) -> None:
    """A model that dies while no call asks is noticed and healed."""
    async with stage_on(triton, tmp_path, triton_probe_interval_s=0.2) as server:
        stub_of(triton).kill()
        await until(lambda: heals(server, "healed") == 1, "healed")


@pytest.mark.long
@pytest.mark.parametrize("hangs", [pytest.param(False, marks=pytest.mark.long), True])
async def test_unhealable_model_not_serving(triton: TritonProcess, tmp_path: Path, footage: list[RenderFrame], hangs: bool) -> None:
    """A model that cannot be healed is not serving until it can be healed."""
    # Only a model that hangs is waited for so long, twice. A pause of the machine is shorter.
    options = {"triton_probe_interval_s": 0.2, "triton_heal_attempts": 1, "triton_heal_wait_s": 3.0 if hangs else 1.0}
    async with stage_on(triton, tmp_path, **options) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = RenderServiceStub(channel)
        assert await health_of(channel) == SERVING
        if hangs:
            psutil.Process(triton.pid).suspend()
        else:
            await asyncio.to_thread(triton.stop, kill=True)

        async def has_health(status: int) -> bool:
            return await health_of(channel) == status

        await until(lambda: has_health(NOT_SERVING), "NOT_SERVING")
        with rpc_refused(code="UNAVAILABLE", match="does not compute"):
            async for _ in stub.Render(many(footage[:1], 1)):
                pass
        assert heals(server, "failed") >= 1
        # Calls that need no network are answered all the while.
        assert (await stub.ListModels(pb.ListModelsRequest())).models[0].backend == "triton/onnxruntime"
        if hangs:
            psutil.Process(triton.pid).resume()
        else:
            await asyncio.to_thread(triton.start)

        async def is_rendered() -> bool:
            # The stage serves when the first model computes. Until all do, a long pause may end the healing of another one.
            with suppress(grpc.aio.AioRpcError):
                return len([reply async for reply in stub.Render(many(footage, 1))]) == len(footage)
            return False

        await until(lambda: has_health(SERVING), "SERVING")
        await until(is_rendered, "rendered")


async def test_missing_triton_stops_start(tmp_path: Path) -> None:
    """A stage without its Triton says so and does not begin."""
    port = free_port()
    triton = {"backend": "triton", "triton_url": f"127.0.0.1:{port}", "triton_start_timeout_s": 0.3}
    settings = RenderSettings(port=0, artefacts_url=str(tmp_path), **triton)
    with pytest.raises(BackendUnavailableError, match="no Triton answers"):
        async with server_of("render", settings, compose(settings)):
            pass


@pytest.mark.long
async def test_waiting_at_triton_is_load(start_triton, tmp_path, in_process, footage) -> None:
    """Eight streams on a slow device for two wait three seconds for each second of computing, and the stage says so."""
    weights = tmp_path / "weights"
    weights.mkdir()
    for path in WEIGHTS_FOLDER.glob("ugc.*"):
        shutil.copy(path, weights)
    write_repository(tmp_path / "repository", weights, RepositorySpec(instances=2, max_batch_size=1, queue_delay_us=0))
    (model,) = (tmp_path / "repository").rglob("model.py")
    model.write_text(model.read_text() + SLOW)
    slow = start_triton(tmp_path / "repository")
    async with stage_on(slow, tmp_path / "artefacts", batch_size=1, render_weights=str(weights)) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = RenderServiceStub(channel)  # type: ignore[assignment]

            async def stream() -> int:
                return len([answer async for answer in stub.Render(many(footage, 1), timeout=120)])

            counts = await asyncio.gather(*(stream() for _ in range(8)))
        ratio = server.metrics.registry.get_sample_value("dubstage_queue_to_compute_ratio", {"stage": "render"})
    assert min(counts) > 0
    assert ratio is not None
    assert 2.0 <= ratio <= 3.6
