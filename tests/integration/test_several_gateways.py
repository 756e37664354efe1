"""Two gateway processes over one PostgreSQL and one data folder: whatever happens to one of them, the other ends its work."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dubstage.client import Connection, DubstageCallError, connect
from dubstage.client import gateway as client
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from tests.contract.stores.postgres_servers import PostgresServer, postgres
from tests.integration.conftest import Media, RunningStages, dubbing, enrolment, write_short_clip
from tests.integration.test_operations import until

__all__ = ["postgres"]

LEASE_S = 3
FRAMES = 64
ROOT = Path(__file__).parents[2]


@dataclass
class Gateway:
    """One gateway process after another."""

    name: str
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: int = 0
    opened: list[Connection] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    @property
    def _ready(self) -> Path:
        return self.folder / f"{self.name}-{self.started}.ready"

    def start(self) -> None:
        self.started += 1
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway"],
                env={**self.environment, "DUBSTAGE_READY_FILE": str(self._ready)},
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def connect(self) -> Connection:
        """A connection to the gateway, as soon as it serves."""
        until(lambda: self._ready.exists() or self._has_ended(), seconds=60)
        assert not self._has_ended(), self.log
        self.opened.append(connect(self._ready.read_text().strip(), timeout_s=30))
        return self.opened[-1]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait(timeout=30)

    def stop(self) -> None:
        for connection in self.opened:
            connection.close()
        if self.process is not None and not self._has_ended():
            self.process.kill()
            self.process.wait(timeout=30)

    def _has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


@dataclass
class Pair:
    """Two gateways, and their folders."""

    first: Gateway
    second: Gateway
    data: Path
    media: Path

    def journalled(self) -> list[Path]:
        return list((self.data / "jobs").glob("*/journal/[0-9a-f]*"))

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.media / name).read_bytes()).hexdigest()

    def leaves_nothing(self) -> bool:
        return not list((self.data / "jobs").iterdir()) and not list(self.media.glob(".dubstage-*"))


@pytest.fixture(scope="module")
def pair(
    postgres: PostgresServer, stages: RunningStages, media: Media, carphone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("data", "media", "run")}
    write_short_clip(carphone, folders["media"] / "footage.mp4", FRAMES // 2, times=2)
    shutil.copy(media.speech, folders["media"] / "speech.wav")
    postgres.execute("CREATE DATABASE several_gateways")
    environment = {
        **os.environ,
        **{f"DUBSTAGE_{name.upper()}": value for name, value in stages.endpoints().items()},
        "DUBSTAGE_ARTEFACTS_URL": str(stages.artefacts),
        "DUBSTAGE_DATABASE_URL": postgres.url("several_gateways"),
        "DUBSTAGE_DATA_DIR": str(folders["data"]),
        "DUBSTAGE_MEDIA_DIR": str(folders["media"]),
        "DUBSTAGE_OPERATION_LEASE_S": str(LEASE_S),
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_COMPUTE_THREADS": "1",
        "DUBSTAGE_LOG_FORMAT": "json",
        "DUBSTAGE_DRAIN_GRACE_S": "0",
    }
    found = Pair(
        Gateway("first", folders["run"], environment),
        Gateway("second", folders["run"], environment),
        folders["data"],
        folders["media"],
    )
    try:
        for one in (found.first, found.second):
            one.start()
        yield found
    finally:
        for one in (found.first, found.second):
            one.stop()


def events(log: str, name: str) -> list[str]:
    """The operations that a gateway's log tells an event of."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [str(line["operation"]) for line in lines if line["event"] == name]


def shown(state: client.OperationState) -> pb.DubProgress:
    assert isinstance(state.progress, pb.DubProgress)
    return state.progress


@pytest.fixture(scope="module")
def undisturbed(pair: Pair) -> str:
    """Digest of the film that nothing disturbed."""
    client.dub(pair.second.connect(), **dubbing("undisturbed.mp4")).wait(timeout_s=60)
    return pair.digest("undisturbed.mp4")


def test_a_killed_gateway_is_followed_by_the_other_with_the_same_bytes(pair: Pair, undisturbed: str) -> None:
    at_second = pair.second.connect()
    dub = client.dub(pair.first.connect(), **dubbing("killed.mp4"))
    until(lambda: len(pair.journalled()) >= 1)
    there = client.Operation(at_second, dub.name, client.DUB)
    until(lambda: shown(there.state()).stage != "", seconds=5)
    assert [state.name for state in client.list_operations(at_second, done=False)] == [dub.name]
    pair.first.send(signal.SIGKILL)
    until(lambda: dub.name in events(pair.second.log, "operation_resumed"), seconds=10)
    assert there.wait(timeout_s=60).num_frames == FRAMES
    pair.first.start()
    assert pair.digest("killed.mp4") == undisturbed
    assert pair.leaves_nothing()


def test_a_paused_gateway_stops_and_leaves_the_film_of_the_other_alone(pair: Pair, undisturbed: str) -> None:
    at_first, at_second = pair.first.connect(), pair.second.connect()
    dub = client.dub(at_first, **dubbing("paused.mp4"))
    # With the job's folder and the unfinished film in its hands.
    until(lambda: len(pair.journalled()) >= 1 and bool(list(pair.media.glob(".dubstage-*"))))
    pair.first.send(signal.SIGSTOP)
    client.Operation(at_second, dub.name, client.DUB).wait(timeout_s=60)
    written = (pair.media / "paused.mp4").stat()
    pair.first.send(signal.SIGCONT)
    until(lambda: dub.name in events(pair.first.log, "operation_lost"), seconds=10)
    assert client.Operation(at_first, dub.name, client.DUB).state().done
    assert pair.digest("paused.mp4") == undisturbed
    after = (pair.media / "paused.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    until(pair.leaves_nothing, seconds=10)


def test_any_gateway_cancels_and_erases_what_another_works_on(pair: Pair) -> None:
    at_first, at_second = pair.first.connect(), pair.second.connect()
    dub = client.dub(at_first, **dubbing("cancelled.mp4"))
    until(lambda: len(pair.journalled()) >= 1)
    there = client.Operation(at_second, dub.name, client.DUB)
    there.cancel()
    begin = time.monotonic()
    with pytest.raises(DubstageCallError, match="cancelled"):
        there.wait(timeout_s=10)
    assert time.monotonic() - begin < 5
    assert pair.leaves_nothing()

    client.enrol(at_second, **enrolment("driver")).wait(timeout_s=60)
    dub = client.dub(at_first, **dubbing("erased.mp4", actor_id="driver"))
    until(lambda: len(pair.journalled()) >= 1)
    assert client.erase_actor(at_second, "driver").erased_sha256
    for connection in (at_first, at_second):
        with pytest.raises(DubstageCallError, match="no operation"):
            client.get_operation(connection, dub.name)
    assert pair.leaves_nothing()
    assert not (pair.media / "erased.mp4").exists()


def test_no_log_has_a_traceback(pair: Pair) -> None:
    assert "Traceback" not in pair.first.log + pair.second.log
