"""The whole pipeline with its trained networks, started once for all system tests."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.batch.worker import WorkerContext, open_worker_context
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from research.stage_host import StageHost
from services.audio.models import AudioModels
from services.common.server.settings import load_settings
from services.common.store.artefacts import OWNER, ArtefactStore
from tests.forked import run_forked
from tests.system.dubbing import ROOT, Dubber


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> GatewaySettings:
    folder = tmp_path_factory.mktemp("dubstage")
    return load_settings(GatewaySettings, data_dir=folder, artefacts_url=str(folder / "artefacts"))


@pytest.fixture(autouse=True)
def _database_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests with databases of their own share the stages and their store: each test has footage, and so blobs, of its own."""
    if "settings" not in request.fixturenames:
        yield
        return
    owner = Path(request.getfixturevalue("settings").artefacts_url) / OWNER
    owner.unlink(missing_ok=True)
    yield
    # Fixtures of the next module open databases before the next test begins.
    owner.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def host(settings: GatewaySettings) -> Iterator[StageHost]:
    with StageHost(settings) as running:
        yield running


@pytest.fixture(scope="session")
def dubber(host: StageHost, settings: GatewaySettings) -> Dubber:
    return Dubber(host, ArtefactStore(settings.artefacts_url), settings.data_dir / "jobs")


@pytest.fixture(scope="session")
def models() -> AudioModels:
    """The audio stage's networks."""
    return AudioModels()


@pytest.fixture
async def worker_context(host, settings, tmp_path, request) -> AsyncIterator[WorkerContext]:
    """A worker of batches dubs with this context: stores of its own, and the stages and the artefact store of all system tests.

    A parameter is further settings.
    """

    async def serving() -> Stages:
        return host.stages

    places = {"data_dir": tmp_path / "data", "artefacts_url": settings.artefacts_url}
    own = load_settings(GatewaySettings, **places, **getattr(request, "param", {}))
    async with open_worker_context(own) as opened, AsyncExitStack() as stack:
        yield WorkerContext(opened.installation, stack, serving)


@pytest.fixture
def command_environment(tmp_path: Path) -> dict[str, str]:
    """Variables of a command whose data lie below the test's folder."""
    return {
        **os.environ,
        "DUBSTAGE_DATA_DIR": str(tmp_path / "data"),
        "DUBSTAGE_ARTEFACTS_URL": str(tmp_path / "artefacts"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def dubstage(command_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a process of its own, with its data below the test's folder."""

    def run(*arguments: object, timeout: float = 600.0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
        environment = {**command_environment, **more}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False, cwd=ROOT)

    return run


@pytest.fixture
def forked_dubstage(command_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a process of its own, as `dubstage` does, without the seconds that its imports take."""

    def run(*arguments: object, timeout: float = 600.0, **more: str) -> subprocess.CompletedProcess[str]:
        return run_forked([str(argument) for argument in arguments], {**command_environment, **more}, cwd=ROOT, timeout=timeout)

    return run


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Place of a video, in a folder of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "dub.mp4"
