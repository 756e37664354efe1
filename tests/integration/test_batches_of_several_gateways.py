"""A batch over two gateways that share a database and a store of batches: whatever dies, every shot is dubbed once."""

import hashlib
import shutil
import signal
from pathlib import Path

import pytest

from dubstage.client import Connection, batch
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.cli.options import gateway_settings
from gateway.provenance.binding import media_sha256
from gateway.settings import TENANTS_FOLDER
from gateway.signatures import TOKEN_FINGERPRINTS, installation_key
from services.common.server.call_context import fingerprint_of
from tests.contract.stores.postgres_servers import PostgresServer
from tests.integration.client_calls import until
from tests.integration.test_batches import row, shots_of
from tests.integration.test_several_gateways import DATABASE, TOKENS, Pair, pair
from tests.integration.videos import write_short_clip

__all__ = ["pair"]

# test_leases.py (contract) has each step of a takeover, and test_several_gateways.py a dub that another gateway ends.
pytestmark = pytest.mark.long

SHOTS = ("one", "two", "three", "four")


def rows(name: str) -> list[pb.BatchRow]:
    # The longer video is the one that a gateway is killed with: the shot before is short, as the shots that are dubbed afterwards.
    footage = {"two": "footage.mp4"}
    return [row(shot, footage.get(shot, "short.mp4"), f"{name}_{shot}.mp4", seed=number) for number, shot in enumerate(SHOTS)]


def progress_of(connection: Connection, name: str) -> pb.BatchProgress:
    return batch.get(connection, name).progress


def num_written(progress: pb.BatchProgress) -> int:
    """Number of videos. No frame of the short video is dubbed: it has too few frames to learn the man from."""
    return progress.num_done + progress.num_undubbed


def ended(connection: Connection, name: str) -> pb.BatchProgress:
    """Progress of a batch whose shots have all ended."""
    until(lambda: not (progress_of(connection, name).num_waiting or progress_of(connection, name).num_running), seconds=240)
    return progress_of(connection, name)


@pytest.fixture(scope="module", autouse=True)
def _short(pair: Pair, carphone: Path) -> None:
    write_short_clip(carphone, pair.media / "short.mp4", 24)


def test_other_gateway_ends_batch(pair: Pair, postgres: PostgresServer) -> None:
    at_second = pair.second.connect()
    batch.submit(pair.first.connect(), "killed", rows=rows("killed"))
    until(lambda: num_written(progress_of(at_second, "killed")) >= 1, seconds=240)
    pair.first.send(signal.SIGKILL)
    # Until the lease ends, the batch stays as the dead gateway left it.
    left = shots_of(at_second, "killed")
    before = {name: shot for name, shot in left.items() if shot.state in (pb.SHOT_STATE_DONE, pb.SHOT_STATE_UNDUBBED)}
    begun = {name for name, shot in left.items() if shot.state == pb.SHOT_STATE_RUNNING}
    written = {name: (pair.media / shot.output_uri).stat() for name, shot in before.items()}
    assert len(before) < len(left)
    # The dead gateway renews its lease no more.
    postgres.execute("UPDATE operation_leases SET until = 0", DATABASE)
    progress = ended(at_second, "killed")
    assert (num_written(progress), progress.num_failed) == (4, 0)
    shots = shots_of(at_second, "killed")
    for name, shot in shots.items():
        video = (pair.media / shot.output_uri).read_bytes()
        assert shot.output_sha256 == hashlib.sha256(video).hexdigest(), name
    # Finished shots stay untouched; the shots of the dead gateway were begun again.
    for name, stat in written.items():
        after = (pair.media / shots[name].output_uri).stat()
        assert (shots[name].attempts, after.st_ino, after.st_mtime_ns) == (1, stat.st_ino, stat.st_mtime_ns)
    assert {name for name, shot in shots.items() if shot.attempts == 2} == begun
    pair.first.start()


def test_any_gateway_manages_batch(pair: Pair) -> None:
    """Any gateway shows, cancels, retries and removes a batch."""
    at_first, at_second = pair.first.connect(), pair.second.connect()
    batch.submit(at_first, "shared", rows=rows("shared"))
    until(lambda: progress_of(at_second, "shared").num_running == 1, seconds=240)
    # A second submission of the same rows in another gateway starts nothing twice.
    assert batch.submit(at_second, "shared", rows=rows("shared")).batch.num_shots == 4
    batch.cancel(at_second, "shared")
    progress = ended(at_first, "shared")
    assert progress.num_cancelled + num_written(progress) == 4
    batch.retry(at_second, "shared")
    assert num_written(ended(at_first, "shared")) == 4
    assert {shot.attempts for shot in shots_of(at_second, "shared").values()} == {1}
    batch.delete(at_first, "shared")
    assert "shared" not in {resource_id(one.name) for one in batch.list_batches(at_second)}


def test_tenant_batch_in_tenant_folders(pair: Pair, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of a tenant of a killed gateway ends in the tenant's places."""
    home = pair.media / TENANTS_FOLDER / "acme"
    home.mkdir(parents=True)
    for name in ("short.mp4", "footage.mp4", "speech.wav"):
        shutil.copy(pair.media / name, home)
    videos = [home / f"acme_{number}.mp4" for number in range(3)]
    at_first = pair.first.connect("acme")
    footage = ("short.mp4", "footage.mp4", "short.mp4")
    shots = [row(video.stem, name, video.name) for video, name in zip(videos, footage, strict=True)]
    batch.submit(at_first, "night", rows=shots)
    until(lambda: num_written(progress_of(at_first, "night")) >= 1, seconds=240)
    until(lambda: any((pair.data / "tenants" / "acme" / "jobs").glob("*/journal/[0-9a-f]*")), seconds=240)
    pair.first.send(signal.SIGKILL)
    assert not videos[-1].exists()
    # No caller calls the other gateway in the tenant's name: it knows from the database that the tenant has work.
    postgres.execute("UPDATE dubstage_acme.operation_leases SET until = 0", DATABASE)
    until(videos[-1].exists, seconds=240)
    progress = ended(pair.second.connect("acme"), "night")
    pair.first.start()
    assert (num_written(progress), progress.num_failed) == (3, 0)
    assert not list(pair.media.glob("acme_*"))
    assert (pair.data / "batches" / TENANTS_FOLDER / "acme" / "night").is_dir()
    assert "night" not in {resource_id(one.name) for one in batch.list_batches(pair.second.connect())}

    for variable, value in pair.second.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("DUBSTAGE_TENANT", "acme")
    assert run(["audit", "verify"]) == 0
    with ActorStore(gateway_settings()) as actors:
        entries = [entry for entry in actors.audit.newest(1000) if entry["event"] != "settings.changed"]
    key = installation_key(pair.data).derived(TOKEN_FINGERPRINTS)
    assert {tuple(entry["by"].values()) for entry in entries} == {("acme", fingerprint_of(TOKENS["acme"], key))}
    begun = {entry["work"]: entry["details"]["row"] for entry in entries if entry["event"] == "dub.begun"}
    told = [(begun[entry["work"]], entry["outputs"]) for entry in entries if entry["event"] == "dub.ended"]
    assert sorted(told) == [(row, [media_sha256(video)]) for row, video in enumerate(videos)]


def test_no_log_has_a_traceback(pair: Pair) -> None:
    assert "Traceback" not in pair.first.log + pair.second.log
