"""The five stages and the gateway as real servers on free ports, with the trained networks; short real footage."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dubstage.client import Connection
from dubstage.client import gateway as gateway_client
from dubstage.client.names import resource_id
from gateway.api.server import GatewayServer
from gateway.settings import GatewaySettings
from tests.contract.stores.postgres_servers import postgres, postgres_url
from tests.contract.stores.s3_servers import aws, s3
from tests.integration.client_calls import enrolment
from tests.integration.servers import LoopThread, RunningGateway, RunningStages, StartGateway, serving_stages, started
from tests.integration.videos import NUM_FRAMES, OTHER, SPEECH, Media, write_short_clip

__all__ = ["aws", "postgres", "postgres_url", "s3"]


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def stages(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStages]:
    """Five servers with the committed networks, warm."""
    with serving_stages(loop_thread, tmp_path_factory.mktemp("artefacts")) as running:
        yield running


@pytest.fixture(autouse=True)
def _database_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    if "stages" not in request.fixturenames:
        yield
        return
    running: RunningStages = request.getfixturevalue("stages")
    running.let_another_database_own_the_store()
    yield
    # Fixtures of the next module open databases before the next test begins.
    running.let_another_database_own_the_store()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, carphone: Path) -> Media:
    found = Media(tmp_path_factory.mktemp("media"))
    write_short_clip(carphone, found.footage, NUM_FRAMES)
    write_short_clip(carphone, found.root / OTHER, NUM_FRAMES - 8)
    samples, rate_hz = soundfile.read(SPEECH, dtype="int16")
    soundfile.write(found.speech, samples[: int(1.5 * rate_hz)], rate_hz)
    return found


@pytest.fixture(scope="session")
def long_footage(media: Media, carphone: Path) -> str:
    """Footage in the media folder for work that a test stops: its dub does not end before the test takes its next step."""
    write_short_clip(carphone, media.root / "long_footage.mp4", NUM_FRAMES, times=6)
    return "long_footage.mp4"


@pytest.fixture(scope="session")
def samples() -> tuple[npt.NDArray[np.float32], int]:
    """Two seconds of speech, float32 [n], and its rate."""
    read, rate_hz = soundfile.read(SPEECH, dtype="float32")
    assert read.ndim == 1
    return read[: 2 * rate_hz], rate_hz


@pytest.fixture(scope="session")
def gateway_factory(loop_thread, stages, media, tmp_path_factory) -> Callable[..., RunningGateway]:
    def start(*, tokens: Iterable[str] = (), **settings: Any) -> RunningGateway:
        """Start a gateway. `tokens` are the lines of its token file."""
        data = settings.pop("data_dir", None) or tmp_path_factory.mktemp("gateway")
        if tokens:
            settings["auth_token_file"] = tmp_path_factory.mktemp("tokens") / "tokens"
            settings["auth_token_file"].write_text("".join(f"{line}\n" for line in tokens))
        stages.let_another_database_own_the_store()
        chosen = GatewaySettings(
            **{
                "port": 0,
                "data_dir": data,
                "media_dir": media.root,
                "artefacts_url": str(stages.artefacts),
                "drain_grace_s": 0.0,
                "stages_start_s": 100.0,
                # Whether a stream is taken must not depend on how busy the machine is.
                "max_live_frame_ms": 3_600_000,
                **stages.endpoints(),
                **settings,
            }
        )

        return RunningGateway(loop_thread.run(started(lambda: GatewayServer(chosen))), data, chosen)

    return start


def _ending(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[StartGateway]:
    running: list[RunningGateway] = []

    def start(**settings: Any) -> RunningGateway:
        running.append(gateway_factory(**settings))
        return running[-1]

    yield start
    for one in running:
        loop_thread.run(one.server.drain(grace_s=0))


@pytest.fixture
def start_gateway(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[StartGateway]:
    """Starts gateways of a test's own; they end with it."""
    yield from _ending(gateway_factory, loop_thread)


@pytest.fixture(scope="module")
def module_gateway(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[StartGateway]:
    """Starts gateways of a module's own; they end with it."""
    yield from _ending(gateway_factory, loop_thread)


@pytest.fixture
def stop_gateway(loop_thread: LoopThread) -> Callable[[RunningGateway], None]:
    return lambda running: loop_thread.run(running.server.drain(grace_s=0))


@pytest.fixture(scope="session")
def gateway(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[RunningGateway]:
    """One gateway for the tests that change nothing of it."""
    running = gateway_factory()
    yield running
    loop_thread.run(running.server.drain(grace_s=0))


@pytest.fixture
def connection(gateway: RunningGateway) -> Iterator[Connection]:
    """A client of `gateway`."""
    with gateway.connect() as opened:
        yield opened


@pytest.fixture(scope="session")
def actor(gateway: RunningGateway) -> str:
    """A man who is enrolled at `gateway`, without personalised networks, with consent."""
    with gateway.connect() as connection:
        made = gateway_client.enrol(connection, **enrolment("driver")).wait(timeout_s=300)
    return resource_id(made.name)
