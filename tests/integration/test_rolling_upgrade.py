"""The whole suite is upgraded under load, as by Kubernetes: all stages at the same time, one replica of each stage after the other.

Every server is ended and started anew, and no dub fails or changes.
"""

import contextlib
import os
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dubstage.client import connect
from dubstage.client import gateway as client
from gateway.cli.serve import MODULES
from gateway.provenance.binding import media_sha256
from gateway.stages.interface import STAGE_NAMES
from services.common.store.artefacts import OWNER
from tests.integration.client_calls import dubbing, until
from tests.integration.server_process import ServerProcess
from tests.integration.test_serve import free_ports
from tests.integration.videos import Media, write_short_clip

REPLICAS = 2
FRAMES = (26, 32)
"""Lengths of the videos that are dubbed over and over: one a dubbing client."""


@dataclass
class Replica:
    """One server process after another, at one address."""

    name: str
    port: int
    metrics_port: int
    folder: Path
    environment: dict[str, str]
    process: ServerProcess | None = None
    started: int = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}-{self.port}.log"

    def start(self) -> None:
        self.started += 1
        self.process = ServerProcess(MODULES[self.name], {**self.environment, "DUBSTAGE_READY_FILE": str(self._ready())}, self.log)

    def wait_until_ready(self) -> None:
        assert self.process is not None
        until(lambda: self._ready().exists() or self._ended(), seconds=300)
        assert not self._ended(), self.log.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send(number)
        assert self.process.ended(timeout=120) == (0 if number is signal.SIGTERM else -number)

    def calls_in_flight(self, rpc: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as page:
            lines = page.read().decode().splitlines()
        found = [line for line in lines if line.startswith("dubstage_rpcs_in_flight{") and f"/{rpc}" in line]
        return int(sum(float(line.rpartition(" ")[2]) for line in found))

    def _ready(self) -> Path:
        return self.folder / f"{self.name}-{self.port}-{self.started}.ready"

    def _ended(self) -> bool:
        return self.process is not None and self.process.exit_code is not None


@dataclass
class Suite:
    """Two replicas of every stage, and the gateway."""

    stages: dict[str, list[Replica]]
    gateway: Replica
    artefacts: Path
    data: Path
    media: Path

    def everyone(self) -> list[Replica]:
        return [*(replica for replicas in self.stages.values() for replica in replicas), self.gateway]

    def replace(self, *replicas: Replica, by: signal.Signals = signal.SIGTERM) -> None:
        """End replicas, start their successors, and wait until all successors serve."""
        for replica in replicas:
            replica.end(by)
            replica.start()
        for replica in replicas:
            replica.wait_until_ready()

    def kill_at_work(self, replica: Replica, rpc: str) -> None:
        """Kill a replica during a call, and replace the replica. Again, if the call ended before the signal came."""
        for _ in range(20):
            lost = self.lost_calls()
            until(lambda: replica.calls_in_flight(rpc) > 0, seconds=120)
            self.replace(replica, by=signal.SIGKILL)
            if self.lost_calls() > lost:
                return
        raise AssertionError(f"no {rpc} was lost with its replica")

    def lost_calls(self) -> int:
        """Calls that the gateway has made again so far."""
        return self.gateway.log.read_text().count("trying_again")


@pytest.fixture
def suite(tmp_path: Path, media: Media, carphone: Path) -> Iterator[Suite]:
    folders = {name: tmp_path / name for name in ("artefacts", "data", "media", "run")}
    for folder in folders.values():
        folder.mkdir()
    for frames in FRAMES:
        write_short_clip(carphone, folders["media"] / f"{frames}.mp4", frames)
    shutil.copy(media.speech, folders["media"] / "speech.wav")
    ports = iter(free_ports(2 * (REPLICAS * len(STAGE_NAMES) + 1)))
    common = {
        **os.environ,
        "DUBSTAGE_ARTEFACTS_URL": str(folders["artefacts"]),
        "DUBSTAGE_COMPUTE_THREADS": "1",
        "DUBSTAGE_LOG_FORMAT": "json",
        # So short that streams are cut off by it: the drill is about what comes after.
        "DUBSTAGE_DRAIN_GRACE_S": "0.3",
        "DUBSTAGE_MAX_CONNECTION_AGE_S": "5",
    }

    def replica(name: str, **more: str) -> Replica:
        port, metrics = next(ports), next(ports)
        own = {"DUBSTAGE_PORT": str(port), "DUBSTAGE_METRICS_PORT": str(metrics), **more}
        return Replica(name, port, metrics, folders["run"], {**common, **own})

    stages = {name: [replica(name) for _ in range(REPLICAS)] for name in STAGE_NAMES}
    endpoints = {
        f"DUBSTAGE_{name.upper()}_ENDPOINT": "ipv4:" + ",".join(f"127.0.0.1:{one.port}" for one in replicas)
        for name, replicas in stages.items()
    }
    gateway = replica(
        "gateway",
        DUBSTAGE_DATA_DIR=str(folders["data"]),
        DUBSTAGE_MEDIA_DIR=str(folders["media"]),
        DUBSTAGE_MAX_CONCURRENT_JOBS=str(len(FRAMES)),
        # A call that begins a dub looks into the footage first: it is let end.
        DUBSTAGE_DRAIN_GRACE_S="30",
        **endpoints,
    )
    suite = Suite(stages, gateway, folders["artefacts"], folders["data"], folders["media"])
    try:
        for one in suite.everyone():
            one.start()
        for one in suite.everyone():
            one.wait_until_ready()
        yield suite
    finally:
        for one in suite.everyone():
            if one.process is not None:
                one.process.kill()


@dataclass
class Customer:
    """Dubs one video over and over, until told to stop."""

    suite: Suite
    frames: int
    stop: threading.Event
    digests: list[str] = field(default_factory=list)

    def dub(self) -> str:
        # Without loss: what is compared is the picture, and no encoder's choices.
        output = f"{self.frames}_{len(self.digests)}.mp4"
        with connect(f"127.0.0.1:{self.suite.gateway.port}", timeout_s=120) as connection:
            result = client.dub(connection, **dubbing(output, footage=f"{self.frames}.mp4")).wait(timeout_s=300)
        assert result.num_frames == self.frames
        assert result.num_dubbed >= 25
        return media_sha256(self.suite.media / output)

    def run(self) -> None:
        while not self.stop.is_set():
            self.digests.append(self.dub())


@contextlib.contextmanager
def load(customers: list[Customer]) -> Iterator[None]:
    """All customers at work; leaving waits for their last dubs, and raises what one of them got to see."""
    with ThreadPoolExecutor(len(customers)) as pool:
        running: list[Future[None]] = [pool.submit(customer.run) for customer in customers]
        try:
            yield
        finally:
            for customer in customers:
                customer.stop.set()
    for one in running:
        one.result()


@pytest.mark.long
def test_rolling_upgrade_under_load(suite: Suite) -> None:
    """Every server is replaced under load and no dub fails or changes."""
    stop = threading.Event()
    customers = [Customer(suite, frames, stop) for frames in FRAMES]
    killed = {"face": "Track", "render": "Render"}
    for customer in customers:
        customer.digests.append(customer.dub())
    assert suite.lost_calls() == 0

    began = time.monotonic()
    with load(customers):
        suite.replace(*(first for first, _ in suite.stages.values()))
        suite.replace(suite.gateway, *(second for name, (_, second) in suite.stages.items() if name not in killed))
        for name, rpc in killed.items():
            suite.kill_at_work(suite.stages[name][1], rpc)
    print(f"{sum(len(customer.digests) for customer in customers)} dubs, upgraded in {time.monotonic() - began:.1f} s")

    for customer in customers:
        assert len(customer.digests) >= 2
        assert set(customer.digests) == {customer.digests[0]}, f"the video of {customer.frames} frames"
    assert suite.lost_calls() >= 2
    assert "Traceback" not in suite.gateway.log.read_text()
    assert list((suite.data / "jobs").iterdir()) == []
    assert [path.name for path in suite.artefacts.rglob("*") if path.is_file()] == [OWNER]
    assert not [path for path in suite.media.iterdir() if path.name.startswith(".")]
    for one in suite.everyone():
        one.end()
