"""The five stages and the gateway as real servers on free ports, with the trained networks; short real footage."""

from __future__ import annotations

import asyncio
import threading
import wave
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import Connection, connect
from dubstage.client import gateway as gateway_client
from gateway.api.server import GatewayServer
from gateway.settings import GatewaySettings
from gateway.stages.local import compose_stages
from services.common.chassis.server import StageServer
from services.common.chassis.settings import StageSettings
from services.common.chassis.stage import server_of

T = TypeVar("T")

SPEECH = Path(__file__).parents[2] / "assets" / "demo_speech.wav"
NUM_FRAMES = 40
OTHER = "other.mp4"


class LoopThread:
    """An event loop of its own, so that tests call the servers as other processes would: over their ports, synchronously."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class RunningStages:
    """Where the five stages listen, and the store that they share."""

    ports: dict[str, int]
    artefacts: Path

    def endpoints(self) -> dict[str, str]:
        return {f"{name}_endpoint": f"127.0.0.1:{port}" for name, port in self.ports.items()}

    def connect(self, name: str) -> Connection:
        return connect(f"127.0.0.1:{self.ports[name]}", timeout_s=300)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@contextmanager
def serving_at(loop_thread: LoopThread, artefacts_url: str) -> Iterator[dict[str, int]]:
    """The ports of five servers on one store, warm, with the networks that the environment names."""
    settings = StageSettings(port=0, artefacts_url=artefacts_url, drain_grace_s=0.0)
    parts = compose_stages(artefacts_url)
    servers: dict[str, StageServer] = {}

    async def start() -> None:
        for name, part in parts.items():
            servers[name] = server_of(name, settings, part)
            await servers[name].start()
        await asyncio.gather(*(server.warm_up() for server in servers.values()))

    async def stop() -> None:
        for server in servers.values():
            await server.drain(grace_s=0)

    loop_thread.run(start())
    yield {name: server.port for name, server in servers.items()}
    loop_thread.run(stop())


@contextmanager
def serving_stages(loop_thread: LoopThread, artefacts: Path) -> Iterator[RunningStages]:
    """Five servers as `serving_at` starts them, on a store in a folder."""
    with serving_at(loop_thread, str(artefacts)) as ports:
        yield RunningStages(ports, artefacts)


@pytest.fixture(scope="session")
def stages(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStages]:
    """Five servers with the committed networks, warm."""
    with serving_stages(loop_thread, tmp_path_factory.mktemp("artefacts")) as running:
        yield running


@dataclass(frozen=True)
class Media:
    """The gateway's media folder with a short clip of a real man and a short speech."""

    root: Path

    @property
    def footage(self) -> Path:
        return self.root / "footage.mp4"

    @property
    def speech(self) -> Path:
        return self.root / "speech.wav"


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, carphone: Path) -> Media:
    found = Media(tmp_path_factory.mktemp("media"))
    write_short_clip(carphone, found.footage, NUM_FRAMES)
    # For gateways with a database of their own: equal footage has equal blobs, and only one database counts them.
    write_short_clip(carphone, found.root / OTHER, NUM_FRAMES - 8)
    with wave.open(str(SPEECH)) as source, wave.open(str(found.speech), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(int(1.5 * source.getframerate())))
    return found


@pytest.fixture(scope="session")
def long_footage(media: Media, carphone: Path) -> str:
    """Footage in the media folder for work that a test stops: its dub does not end before the test takes its next step."""
    write_short_clip(carphone, media.root / "long_footage.mp4", NUM_FRAMES, times=6)
    return "long_footage.mp4"


def write_short_clip(source: Path, target: Path, num_frames: int, *, times: int = 1) -> None:
    """The last frames of a film, `times` times, twice as large and with square pixels: a face too small would be passed through."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)][-num_frames:]
        stream = writer.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        height, width, _ = pictures[0].shape
        stream.width, stream.height, stream.pix_fmt = 2 * width, 2 * height, "yuv420p"
        # The preset costs a third of the default preset's time, and has frames in another order than they are shown, too.
        stream.options = {"crf": "12", "preset": "superfast"}
        for picture in pictures * times:
            larger = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(2 * width, 2 * height)
            writer.mux(stream.encode(larger))
        writer.mux(stream.encode(None))


@pytest.fixture(scope="session")
def samples() -> tuple[npt.NDArray[np.float32], int]:
    """Two seconds of speech, float32 [n], and its rate."""
    with wave.open(str(SPEECH)) as source:
        assert source.getnchannels() == 1
        rate = source.getframerate()
        pcm = np.frombuffer(source.readframes(2 * rate), "<i2")
    return (pcm / 32768.0).astype(np.float32), rate


@dataclass(frozen=True)
class RunningGateway:
    """A gateway, its folders and how to reach it."""

    server: StageServer
    data: Path
    settings: GatewaySettings

    def connect(self, **options: Any) -> Connection:
        return connect(self.server.address, **{"timeout_s": 300, **options})


StartGateway = Callable[..., RunningGateway]


@pytest.fixture(scope="session")
def gateway_factory(
    loop_thread: LoopThread, stages: RunningStages, media: Media, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunningGateway]:
    def start(**settings: Any) -> RunningGateway:
        data = settings.pop("data_dir", None) or tmp_path_factory.mktemp("gateway")
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

        async def begin() -> GatewayServer:
            server = GatewayServer(chosen)
            try:
                await server.start()
                await server.warm_up()
            except BaseException:
                await server.drain(grace_s=0)
                raise
            return server

        return RunningGateway(loop_thread.run(begin()), data, chosen)

    return start


@pytest.fixture
def start_gateway(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[StartGateway]:
    """Starts gateways of a test's own; they end with it."""
    running: list[RunningGateway] = []

    def start(**settings: Any) -> RunningGateway:
        running.append(gateway_factory(**settings))
        return running[-1]

    yield start
    for one in running:
        loop_thread.run(one.server.drain(grace_s=0))


@pytest.fixture
def stop_gateway(loop_thread: LoopThread) -> Callable[[RunningGateway], None]:
    return lambda running: loop_thread.run(running.server.drain(grace_s=0))


@pytest.fixture(scope="session")
def gateway(gateway_factory: StartGateway, loop_thread: LoopThread) -> Iterator[RunningGateway]:
    """One gateway for the tests that change nothing of it."""
    running = gateway_factory()
    yield running
    loop_thread.run(running.server.drain(grace_s=0))


@pytest.fixture(scope="session")
def actor(gateway: RunningGateway) -> str:
    """A man who is enrolled at `gateway`, without personalised networks, with consent."""
    with gateway.connect() as connection:
        made = gateway_client.enrol(connection, **enrolment("driver")).wait(timeout_s=300)
    return made.actor_id


def enrolment(actor_id: str, *, consent: bool = True, footage: str = "footage.mp4", method: str = "") -> dict[str, Any]:
    """What the client's `enrol` is given for the man of the short clip."""
    record = {"subject": "driver", "granted_by": "driver", "scope": "tests", "date": "2026-01-31", "reference": "box 7"}
    return {
        "actor_id": actor_id,
        "footage": footage,
        "method": method,
        "skip_personalization": True,
        "consent": record if consent else None,
    }


def dubbing(output: str, /, **fields: Any) -> dict[str, Any]:
    """What the client's `dub` is given for the short clip and the short speech."""
    return {"footage": "footage.mp4", "speech": "speech.wav", "output": output, "skip_personalization": True, **fields}
