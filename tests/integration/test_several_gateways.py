"""Two gateway processes over one PostgreSQL and one data folder: whatever happens to one of them, the other ends its work."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import Connection, DubstageCallError, connect
from dubstage.client import gateway as client
from gateway.provenance.binding import media_sha256
from tests.contract.stores.postgres_servers import PostgresServer
from tests.integration.client_calls import dubbing, enrolment, progress, until
from tests.integration.server_process import ServerProcess
from tests.integration.videos import write_short_clip
from tests.refusals import refused

HOLDS_S = 300
"""Lease of a gateway that keeps its work however long the machine pauses, seconds."""
ENDS_S = 3
"""Lease of a gateway that is paused until its lease has ended, seconds."""
DATABASE = "several_gateways"
FRAMES = 96
"""Frames of the video: several windows, so that a gateway may be lost between the windows, on a fast machine too."""
LONG = "long.mp4"
"""Footage of work that ends when another gateway says so: it is not done before, on a fast machine too."""
TOKENS = {"default": "a-token-of-nobody-in-particular", "acme": "a-token-of-acme"}


@dataclass
class Gateway:
    """One gateway process after another."""

    name: str
    folder: Path
    environment: dict[str, str]
    process: ServerProcess | None = None
    started: int = 0
    opened: list[Connection] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _ready(self) -> Path:
        return self.folder / f"{self.name}-{self.started}.ready"

    def start(self, *, lease_s: int = HOLDS_S) -> None:
        self.started += 1
        own = {"DUBSTAGE_READY_FILE": str(self._ready), "DUBSTAGE_OPERATION_LEASE_S": str(lease_s)}
        self.process = ServerProcess("gateway", {**self.environment, **own}, self._log)

    def connect(self, tenant: str = "default") -> Connection:
        """A connection of a tenant to the gateway, as soon as it serves."""
        until(lambda: self._ready.exists() or self._has_ended(), seconds=240)
        assert not self._has_ended(), self.log
        self.opened.append(connect(self._ready.read_text().strip(), token=TOKENS[tenant], timeout_s=60))
        return self.opened[-1]

    def send(self, number: signal.Signals) -> None:
        self.process.send(number)
        if number is signal.SIGKILL:
            self.process.ended(timeout=60)

    def stop(self) -> None:
        while self.opened:
            self.opened.pop().close()
        if self.process is not None:
            self.process.kill()

    def _has_ended(self) -> bool:
        return self.process is None or self.process.exit_code is not None


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
        return media_sha256(self.media / name)

    def leaves_nothing(self) -> bool:
        return not list((self.data / "jobs").iterdir()) and not list(self.media.glob(".dubstage-*"))


@pytest.fixture(scope="module")
def pair(postgres, stages, media, carphone, tmp_path_factory) -> Iterator[Pair]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("data", "media", "run")}
    write_short_clip(carphone, folders["media"] / "footage.mp4", 24, times=FRAMES // 24)
    write_short_clip(carphone, folders["media"] / LONG, 24, times=30)
    shutil.copy(media.speech, folders["media"] / "speech.wav")
    postgres.execute(f"CREATE DATABASE {DATABASE}")
    tokens = folders["run"] / "tokens"
    tokens.write_text("".join(f"{tenant} {token}\n" for tenant, token in TOKENS.items()))
    environment = {
        **os.environ,
        **{f"DUBSTAGE_{name.upper()}": value for name, value in stages.endpoints().items()},
        "DUBSTAGE_ARTEFACTS_URL": str(stages.artefacts),
        "DUBSTAGE_DATABASE_URL": postgres.url(DATABASE),
        "DUBSTAGE_DATA_DIR": str(folders["data"]),
        "DUBSTAGE_MEDIA_DIR": str(folders["media"]),
        "DUBSTAGE_AUTH_TOKEN_FILE": str(tokens),
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_COMPUTE_THREADS": "1",
        "DUBSTAGE_LOG_FORMAT": "json",
        "DUBSTAGE_DRAIN_GRACE_S": "0",
    }
    first, second = (Gateway(name, folders["run"], environment) for name in ("first", "second"))
    found = Pair(first, second, folders["data"], folders["media"])
    try:
        for one in (first, second):
            one.start()
        yield found
    finally:
        for one in (first, second):
            one.stop()


def events(log: str, name: str) -> list[str]:
    """The operations that a gateway's log tells an event of."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [str(line["operation"]) for line in lines if line["event"] == name]


@pytest.fixture(scope="module")
def undisturbed(pair: Pair) -> str:
    """Digest of the video that nothing disturbed."""
    client.dub(pair.second.connect(), **dubbing("undisturbed.mp4")).wait(timeout_s=300)
    return pair.digest("undisturbed.mp4")


@pytest.mark.long
def test_other_gateway_resumes_same_bytes(pair: Pair, undisturbed: str, postgres: PostgresServer) -> None:
    at_second = pair.second.connect()
    dub = client.dub(pair.first.connect(), **dubbing("killed.mp4"))
    until(lambda: len(pair.journalled()) >= 1)
    there = client.Operation(at_second, dub.name, client.DUB)
    until(lambda: progress(there.state()).step != 0)
    assert [state.name for state in client.list_operations(at_second, done=False)] == [dub.name]
    pair.first.send(signal.SIGKILL)
    postgres.execute("UPDATE operation_leases SET until = 0", DATABASE)
    until(lambda: dub.name in events(pair.second.log, "operation_resumed"))
    assert there.wait(timeout_s=300).num_frames == FRAMES
    pair.first.start()
    assert pair.digest("killed.mp4") == undisturbed
    assert pair.leaves_nothing()


@pytest.mark.long
def test_paused_gateway_leaves_video_alone(pair: Pair, undisturbed: str) -> None:
    """A paused gateway stops and leaves the video of the other alone."""
    pair.first.stop()
    pair.first.start(lease_s=ENDS_S)
    at_first, at_second = pair.first.connect(), pair.second.connect()
    dub = client.dub(at_first, **dubbing("paused.mp4"))
    # With the job's folder and the unfinished video in its hands.
    until(lambda: len(pair.journalled()) >= 1 and bool(list(pair.media.glob(".dubstage-*"))))
    pair.first.send(signal.SIGSTOP)
    client.Operation(at_second, dub.name, client.DUB).wait(timeout_s=300)
    written = (pair.media / "paused.mp4").stat()
    pair.first.send(signal.SIGCONT)
    until(lambda: dub.name in events(pair.first.log, "operation_lost"))
    assert client.Operation(at_first, dub.name, client.DUB).state().done
    assert pair.digest("paused.mp4") == undisturbed
    after = (pair.media / "paused.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    until(pair.leaves_nothing)


@pytest.mark.long
def test_any_gateway_cancels_and_erases(pair: Pair) -> None:
    at_first, at_second = pair.first.connect(), pair.second.connect()
    dub = client.dub(at_second, **dubbing("cancelled.mp4", footage=LONG))
    until(lambda: len(pair.journalled()) >= 1)
    there = client.Operation(at_first, dub.name, client.DUB)
    there.cancel()
    with pytest.raises(DubstageCallError, match="cancelled"):
        there.wait(timeout_s=60)
    assert pair.leaves_nothing()

    client.enrol(at_second, **enrolment("driver")).wait(timeout_s=300)
    dub = client.dub(at_second, **dubbing("erased.mp4", footage=LONG, actor_id="driver"))
    until(lambda: len(pair.journalled()) >= 1)
    assert client.erase_actor(at_first, "driver").erased_sha256
    for connection in (at_first, at_second):
        with pytest.raises(DubstageCallError, match="no operation"):
            client.get_operation(connection, dub.name)
    assert pair.leaves_nothing()
    assert not (pair.media / "erased.mp4").exists()


def test_no_log_has_a_traceback(pair: Pair) -> None:
    for gateway in (pair.first, pair.second):
        gateway.connect()  # a process that has just been started has no log yet
    assert "Traceback" not in pair.first.log + pair.second.log


@pytest.mark.long
def test_withdrawal_ends_other_gateways_stream(pair: Pair) -> None:
    at_first, at_second = pair.first.connect(), pair.second.connect()
    wanted = enrolment("withdrawn")
    # A record of its own: the record of the other tests stays.
    client.enrol(at_second, **wanted | {"consent": wanted["consent"] | {"reference": "box 8"}}).wait(timeout_s=300)
    ended = threading.Event()

    def silence() -> Iterator[npt.NDArray[np.float32]]:
        while not ended.wait(0.02):
            yield np.zeros(320, np.float32)

    stream = client.live(at_second, silence(), actor_id="withdrawn", sample_rate_hz=16000)
    next(stream)
    client.revoke_consent(at_first, actor_id="withdrawn")
    with pytest.raises(DubstageCallError) as caught:
        list(stream)
    ended.set()
    assert caught.value.reason == "CONSENT_WITHDRAWN"
    with refused(reason="CONSENT_WITHDRAWN"):
        client.dub(at_second, **dubbing("refused.mp4", actor_id="withdrawn"))
    client.erase_actor(at_first, "withdrawn")
