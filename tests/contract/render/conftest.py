"""A real tritonserver on the CPU with the committed networks, and frames of real footage."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import av
import grpc.aio
import numpy as np
import numpy.typing as npt
import psutil
import pytest
import pytest_asyncio

from dubstage.client.arrays import from_image
from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1.render_pb2_grpc import RenderServiceStub
from research.bench.triton import TritonProcess
from research.render.models import load_models
from services.common.errors import BackendUnavailableError, ModelNotFoundError
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays
from services.common.server.process import server_of
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_to_proto
from services.render.__main__ import compose
from services.render.backends.base import Backend, TritonOptions
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.backends.triton import TritonBackend
from services.render.backends.triton_healing import TritonMonitor
from services.render.settings import RenderSettings
from services.render.streams import RenderModels, make_backend
from services.render.triton.installation import DEFAULT_HOME, install
from services.render.triton.repository import RepositorySpec, write_repository
from services.render.types import Precision, RenderedFrame, RenderFrame
from tests.contract.ports import free_port
from tests.unit.render.conftest import bank, frames, mask

__all__ = ["bank", "frames", "mask"]

_NOT_HEALTHY = "is not healthy"
RESTARTS = 3
"""Restarts of a server that gave up while it loaded models."""

StartTriton = Callable[..., TritonProcess]
Connect = Callable[..., RenderModels]


@pytest.fixture(scope="session")
def triton_home() -> Path:
    """The installation of `make setup-dev`; made now where it is missing."""
    install(DEFAULT_HOME)
    return DEFAULT_HOME


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed network in the CPU's default precision, on one thread."""
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder, WEIGHTS_FOLDER, RepositorySpec())
    return folder


def new_triton(repository: Path, log: Path, home: Path) -> TritonProcess:
    """A server that is not started yet."""
    server = TritonProcess(repository, log, home=home, start_timeout_s=120.0)
    # No other process takes these ports, neither before the server starts nor while it restarts.
    server.grpc_port, server.http_port, server.metrics_port = (free_port() for _ in range(3))
    return server


@pytest.fixture
def start_triton(triton_home: Path, tmp_path: Path) -> Iterator[StartTriton]:
    """Starts servers that end with the test."""
    with ExitStack() as running:
        yield lambda repository: running.enter_context(new_triton(repository, tmp_path / "triton.log", triton_home))


@pytest.fixture
def triton(start_triton: StartTriton, repository: Path) -> TritonProcess:
    """A server without any state of other tests: no model is loaded, and no inference is counted."""
    return start_triton(repository)


@pytest.fixture(scope="module")
def shared_triton(triton_home: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    """One server for the tests of a file. Loading the models takes longer than most tests: they stay loaded from test to test."""
    with new_triton(repository, tmp_path_factory.mktemp("triton") / "log", triton_home) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Loads the committed models at a server; connections end with the test."""
    backends: list[TritonBackend] = []

    def load(
        server: TritonProcess,
        *,
        monitor: TritonMonitor | None = None,
        weights: Path = WEIGHTS_FOLDER,
        precision: Precision | None = None,
        **options: Any,
    ) -> RenderModels:
        patience = {"timeout_s": 30.0, "start_timeout_s": 60.0, "heal_attempts": 2, "heal_wait_s": 30.0}
        # No probe comes between the inferences of a test, however long they take.
        chosen = TritonOptions(**{"url": server.url, **patience, "probe_interval_s": 600.0, **options})

        def attempt() -> RenderModels:
            options = {"precision": precision, "triton": chosen, "monitor": monitor}
            backend = make_backend(device="cpu", backend="triton", num_threads=1, **options)
            assert isinstance(backend, TritonBackend)
            backends.append(backend)
            models = load_models(weights, backend)
            for reason in models.unavailable.values():
                if _NOT_HEALTHY in reason:
                    raise ModelNotFoundError(reason)
            return models

        for _ in range(RESTARTS):
            try:
                return attempt()
            except (BackendUnavailableError, ModelNotFoundError) as error:
                if not gave_up(server, error):
                    raise
                server.stop(kill=True)
                server.start()
        return attempt()

    yield load
    for backend in backends:
        backend.close()


def models_here(weights: Path = WEIGHTS_FOLDER, precision: Precision = Precision.INT8) -> RenderModels:
    """Networks by ONNX Runtime in this process, on one thread."""
    return load_models(weights, make_backend(device="cpu", backend="onnxruntime", precision=precision, num_threads=1))


def models_of_stage() -> RenderModels:
    """The committed networks by the backend that a stage chooses here, on one thread."""
    return load_models(WEIGHTS_FOLDER, make_backend(device="cpu", backend=None, precision=None, num_threads=1))


@pytest.fixture(scope="session")
def in_process() -> Backend:
    return models_here().backend


@pytest.fixture(scope="session")
def footage(carphone: Path, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """24 frames of a real man talking: his picture beside his own of three frames later, under a drawn mask."""
    with av.open(str(carphone)) as container:
        frames = (frame.reformat(2 * frame.width, 2 * frame.height) for frame in container.decode(video=0))
        part = slice(100, 100 + BOX_SIZE)
        pictures = [np.ascontiguousarray(frame.to_ndarray(format="rgb24")[part, part]) for frame in frames][:27]
    return [RenderFrame(row, pictures[row], pictures[row + 3], mask, bank.box_landmarks[row]) for row in range(24)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtefactStore:
    return ArtefactStore(tmp_path_factory.mktemp("artefacts"))


@pytest.fixture(scope="module")
def address(store: ArtefactStore) -> Iterator[str]:
    """Address of a real server, with the models that come with it. The server has a loop of its own, for all tests of a file."""
    threads = {"compute_threads": 1, "personalize_threads": 1}
    settings = RenderSettings(port=0, artefacts_url=store.url, batch_size=2, drain_grace_s=0.0, **threads)
    loop, ended, found = asyncio.new_event_loop(), asyncio.Event(), Future[str]()

    async def serve() -> None:
        async with server_of("render", settings, compose(settings)) as server:
            found.set_result(server.address)
            await ended.wait()

    serving = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    serving.start()
    yield found.result(timeout=120)
    loop.call_soon_threadsafe(ended.set)
    serving.join()
    loop.close()


@pytest_asyncio.fixture
async def stub(address: str):
    """Calls the real server."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield RenderServiceStub(channel)


def rendered_from_proto(response: pb.RenderResponse) -> RenderedFrame:
    """The picture of an answer."""
    return RenderedFrame(response.frame_index, from_image(response.box))


async def rendered(stub, messages: Iterable[pb.RenderRequest]) -> list[RenderedFrame]:
    """The answers to a stream of these messages."""
    return [rendered_from_proto(response) async for response in stub.Render(messages)]


async def personalised(stub, store: ArtefactStore, bank: MouthBank, model: str, **options: Any) -> list[pb.PersonalizeResponse]:
    """The reports of a personalisation on a bank. `options` are further fields of the request."""
    ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    return [report async for report in stub.Personalize(pb.PersonalizeRequest(model=model, bank=ref, **options))]


def actor_states(count: int) -> list[npt.NDArray[np.float32]]:
    """States of actors who differ visibly."""
    rng = np.random.default_rng(11)
    return [rng.normal(0.0, 0.05, 3480).astype(np.float32) for _ in range(count)]


def gave_up(server: TritonProcess, error: BackendUnavailableError | ModelNotFoundError) -> bool:
    """Whether tritonserver ended, or gave a model up, by itself.

    NVIDIA's server and the processes of its models wait about a second for each other's locks. When the machine pauses longer, the
    server ends itself (boost::interprocess::lock_exception), or says that a sound process "is not healthy". A restart is the cure.
    """
    with suppress(psutil.NoSuchProcess):
        return _NOT_HEALTHY in error.message or psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
    return True


def stub_of(server: TritonProcess, model: str = "ugc") -> psutil.Process:
    """The process in which one of the server's models runs."""

    def is_stub(child: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):  # a process may end while it is looked at
            return (
                child.name().startswith("triton_python_b")
                and child.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED}
                and any(f"/{model}/" in argument for argument in child.cmdline())
            )
        return False

    deadline = time.monotonic() + 60.0
    # A stub that was just killed may be there for a moment beside the next one.
    while len(stubs := list(filter(is_stub, psutil.Process(server.pid).children(recursive=True)))) != 1:
        assert time.monotonic() < deadline, stubs
        time.sleep(0.02)
    return stubs[0]
