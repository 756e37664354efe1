"""`dubstage batch cancel`, `retry` and `remove`."""

from __future__ import annotations

from pathlib import Path

from gateway.actors.store import ActorStore
from gateway.batch.locks import batch_lock
from gateway.batch.manifest import manifest_of
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotSpec, ShotState
from gateway.cli.app import run
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.unit.cli.batch.records import Printed, done, failed


def test_shots_are_cancelled_and_retried(store: BatchStore, printed: Printed) -> None:
    store.put("night", done(0))
    store.put("night", failed(1))
    assert run(["batch", "cancel", "night", "s2", "s0"]) == 0
    assert printed()[0] == "batch night: 4 shots, 1 done, 1 failed, 1 cancelled, 1 waiting\n"
    assert run(["batch", "cancel", "night"]) == 0
    assert printed()[0] == "batch night: 4 shots, 1 done, 1 failed, 2 cancelled\n"
    assert store.cancelled("night") == {"s2", "s3"}
    assert run(["batch", "retry", "night"]) == 0
    out, err = printed()
    assert (out, err.splitlines()[0]) == ("1-3\n", "3 shots begin anew")
    assert [record.state for record in store.records("night")] == [ShotState.DONE, *[ShotState.WAITING] * 3]
    assert run(["batch", "retry", "night", "s0"]) == 0
    assert store.record("night", "s0") == ShotRecord(id="s0")
    assert run(["batch", "retry", "night", "s9"]) == 10
    assert "batch night has no shot 's9'" in printed()[1]


def test_a_retry_takes_the_options_of_its_engine_only(store: BatchStore, printed: Printed) -> None:
    store.put("night", failed(3))
    assert run(["batch", "retry", "night", "--workers", "2"]) == 10
    assert run(["batch", "retry", "night", "--stages", "localhost"]) == 10
    said = printed()[1]
    assert "--workers does not go with --engine farm" in said
    assert "--stages is an option of --engine local, not of farm" in said
    assert store.record("night", "s3").state is ShotState.FAILED


def test_a_running_shot_is_not_retried_before_it_is_cancelled(store: BatchStore, printed: Printed) -> None:
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, worker="node7:99"))
    assert run(["batch", "retry", "night", "s1"]) == 10
    assert "shot s1 is running by node7:99: wait, or cancel it first" in printed()[1]
    assert run(["batch", "cancel", "night", "s1"]) == 0
    assert run(["batch", "retry", "night", "s1"]) == 0
    assert store.record("night", "s1").state is ShotState.WAITING


def test_a_batch_that_has_ended_is_removed_and_its_films_stay(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(exist_ok=True)
    film = tmp_path / "out" / "0.mp4"
    film.write_bytes(b"film")
    assert run(["batch", "remove", "night"]) == 10
    assert "4 shots of batch night have not ended" in printed()[1]
    assert run(["batch", "cancel", "night"]) == 0
    assert run(["batch", "remove", "night"]) == 0
    assert "batch night is removed" in printed()[0]
    assert store.names() == []
    assert film.exists()


def test_a_batch_of_this_machine_leaves_no_folder(store: BatchStore, printed: Printed, tmp_path: Path) -> None:
    store.create(manifest_of("here", [ShotSpec(id="a", footage="/a.mp4", output="/b.mp4")]), "local")
    assert run(["batch", "cancel", "here"]) == 0
    with batch_lock(load_settings(GatewaySettings), store, "here"):
        assert run(["batch", "remove", "here"]) == 10
        assert "another `dubstage batch submit` runs batch here" in printed()[1]
    assert run(["batch", "remove", "here"]) == 0
    assert [path.name for path in (tmp_path / "data" / "batches").iterdir()] == ["night"]


def test_the_audit_log_says_what_was_retried_and_not_what_was_refused(store: BatchStore, tmp_path: Path) -> None:
    def recorded() -> list[dict[str, object]]:
        with ActorStore(load_settings(GatewaySettings)) as actors:
            return [entry["details"] for entry in actors.audit.newest(100) if entry["event"] == "batch.retried"]

    store.create(manifest_of("theirs", [ShotSpec(id="a", footage="/a.mp4", output="/b.mp4")]), "gateway")
    store.create(manifest_of("here", [ShotSpec(id="a", footage="/a.mp4", output="/b.mp4")]), "local")
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, worker="node7:99"))
    for arguments in (["night", "s9"], ["night", "s1"], ["none"], ["theirs"], ["here", "b"]):
        assert run(["batch", "retry", *arguments]) == 10
    with batch_lock(load_settings(GatewaySettings), store, "here"):
        assert run(["batch", "retry", "here"]) == 10
    assert recorded() == []
    store.put("night", failed(0))
    assert run(["batch", "retry", "night"]) == 0
    assert run(["batch", "retry", "night", "s2"]) == 0
    assert recorded() == [{"shots": "all"}, {"shots": 1}]


def test_a_batch_whose_worker_was_killed_is_removed_by_force_when_it_is_cancelled(store: BatchStore, printed: Printed) -> None:
    store.put("night", ShotRecord(id="s0", state=ShotState.RUNNING, attempts=1, worker="node7:99"))
    for number in (1, 2, 3):
        store.put("night", done(number))
    for force in ([], ["--force"]):
        assert run(["batch", "remove", "night", *force]) == 10, "a worker may have the shot"
    assert run(["batch", "cancel", "night"]) == 0
    assert "dubstage batch remove night --force" in printed()[1]
    assert run(["batch", "remove", "night"]) == 10
    assert "1 shots of batch night have not ended" in (said := printed()[1])
    assert "dubstage batch remove night --force" in said
    assert run(["batch", "remove", "night", "--force"]) == 0
    assert store.names() == []


def test_a_batch_of_the_gateways_is_retried_by_a_gateway(store: BatchStore, printed: Printed) -> None:
    store.create(manifest_of("theirs", [ShotSpec(id="a", footage="/a.mp4", output="/b.mp4")]), "gateway")
    assert run(["batch", "cancel", "theirs"]) == 0
    assert run(["batch", "retry", "theirs"]) == 10
    assert "RetryBatch" in printed()[1]
