"""A batch over two gateways that share a database and a store of batches: whatever dies, every shot is dubbed once."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import pytest

from dubstage.client import Connection, batch
from dubstage.gateway.v1alpha1 import batch_pb2 as pb
from tests.contract.stores.postgres_servers import PostgresServer
from tests.integration.conftest import write_short_clip
from tests.integration.test_operations import until
from tests.integration.test_several_gateways import DATABASE, Pair, pair, postgres

__all__ = ["pair", "postgres"]

SHOTS = ("one", "two", "three", "four")


def rows(name: str) -> list[pb.BatchRow]:
    footage = {"two": "short.mp4"}
    return [
        batch.row(
            shot,
            footage=footage.get(shot, "footage.mp4"),
            speech="speech.wav",
            output=f"{name}_{shot}.mp4",
            seed=number,
            skip_personalization=True,
        )
        for number, shot in enumerate(SHOTS)
    ]


def shots_of(connection: Connection, name: str) -> dict[str, pb.Shot]:
    return {shot.shot_id: shot for shot in batch.list_shots(connection, name)}


def progress_of(connection: Connection, name: str) -> pb.BatchProgress:
    return batch.get(connection, name).progress


def ended(connection: Connection, name: str) -> pb.BatchProgress:
    """Progress of a batch whose shots have all ended."""
    until(lambda: not (progress_of(connection, name).num_waiting or progress_of(connection, name).num_running), seconds=240)
    return progress_of(connection, name)


@pytest.fixture(scope="module", autouse=True)
def _short(pair: Pair, carphone: Path) -> None:
    write_short_clip(carphone, pair.media / "short.mp4", 24)


def test_a_batch_of_a_killed_gateway_is_ended_by_the_other(pair: Pair, postgres: PostgresServer) -> None:
    at_second = pair.second.connect()
    batch.submit(pair.first.connect(), "killed", rows=rows("killed"))
    until(lambda: progress_of(at_second, "killed").num_done >= 1, seconds=240)
    pair.first.send(signal.SIGKILL)
    # Until the lease ends, the batch stays as the dead gateway left it.
    left = shots_of(at_second, "killed")
    before = {name: shot for name, shot in left.items() if shot.state == pb.SHOT_STATE_DONE}
    begun = {name for name, shot in left.items() if shot.state == pb.SHOT_STATE_RUNNING}
    written = {name: (pair.media / shot.output_uri).stat() for name, shot in before.items()}
    assert len(before) < len(left)
    # The dead gateway renews its lease no more.
    postgres.execute("UPDATE operation_leases SET until = 0", DATABASE)
    progress = ended(at_second, "killed")
    assert (progress.num_done, progress.num_failed) == (4, 0)
    shots = shots_of(at_second, "killed")
    for name, shot in shots.items():
        film = (pair.media / shot.output_uri).read_bytes()
        assert shot.output_sha256 == hashlib.sha256(film).hexdigest(), name
    # What was done stays untouched; what was in the dead gateway's hands was begun again.
    for name, stat in written.items():
        after = (pair.media / shots[name].output_uri).stat()
        assert (shots[name].attempts, after.st_ino, after.st_mtime_ns) == (1, stat.st_ino, stat.st_mtime_ns)
    assert {name for name, shot in shots.items() if shot.attempts == 2} == begun
    pair.first.start()


def test_any_gateway_shows_cancels_retries_and_removes_a_batch(pair: Pair) -> None:
    at_first, at_second = pair.first.connect(), pair.second.connect()
    batch.submit(at_first, "shared", rows=rows("shared"))
    until(lambda: progress_of(at_second, "shared").num_running == 1, seconds=240)
    # A second submission of the same rows in another gateway starts nothing twice.
    assert batch.submit(at_second, "shared", rows=rows("shared")).batch.num_shots == 4
    batch.cancel(at_second, "shared")
    progress = ended(at_first, "shared")
    assert progress.num_cancelled + progress.num_done == 4
    batch.retry(at_second, "shared")
    assert ended(at_first, "shared").num_done == 4
    assert {shot.attempts for shot in shots_of(at_second, "shared").values()} == {1}
    batch.delete(at_first, "shared")
    assert "shared" not in {one.batch_id for one in batch.list_batches(at_second)}


def test_no_log_has_a_traceback(pair: Pair) -> None:
    assert "Traceback" not in pair.first.log + pair.second.log
