"""Batches over RPCs on a real gateway: real footage, a damaged file, cancel, retry, watch, report, and what a restart leaves."""

import csv
import hashlib
import json
import wave
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import Connection, batch
from dubstage.client import gateway as client
from dubstage.client.names import resource_id, step_name
from dubstage.gateway.v1 import batch_pb2 as pb
from dubstage.gateway.v1 import consent_pb2
from gateway.batch import worker
from gateway.provenance.binding import media_sha256
from gateway.stages.interface import STAGE_NAMES
from tests.integration.client_calls import batch_ended, dubbing, enrolment, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import OTHER, Media, write_short_clip
from tests.refusals import refusal

DAMAGED = "damaged.mp4"
THIRD = "third.mp4"
MINE = "mine.mp4"
NOT_FOUND = ("NOT_FOUND", "BATCH_NOT_FOUND")
NIGHT = (("a", MINE), ("bad", DAMAGED), ("b", OTHER), ("c", THIRD))
LABEL: dict[str, Any] = {"label": "AI dubbed", "label_position": "bottom-left"}


@pytest.fixture(scope="module")
def videos(media: Media, carphone: Path) -> Media:
    write_short_clip(carphone, media.root / THIRD, 24)
    # The blobs of the session's own footage belong to the actor of another gateway.
    write_short_clip(carphone, media.root / MINE, 39)
    (media.root / DAMAGED).write_bytes(media.footage.read_bytes()[:4000])
    with wave.open(str(media.speech)) as source, wave.open(str(media.root / "short.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getframerate() // 2))
    return media


def row(shot_id: str, footage: str, output: str = "", **more: Any) -> pb.BatchRow:
    return batch.row(shot_id, footage=footage, speech="speech.wav", output=output or f"{shot_id}.mp4", personalize=False, **more)


def shots_of(connection: Connection, name: str) -> dict[str, pb.Shot]:
    return {resource_id(shot.name): shot for shot in batch.list_shots(connection, name)}


def digest(media: Media, name: str) -> str:
    return hashlib.sha256((media.root / name).read_bytes()).hexdigest()


def same_but_for_provenance(media: Media, one: str, other: str) -> bool:
    """Whether two videos have the same bytes but for the manifest of their making, which has a number of its own."""
    return media_sha256(media.root / one) == media_sha256(media.root / other)


@pytest.fixture(scope="module")
def night(module_gateway: StartGateway, videos: Media) -> tuple[RunningGateway, pb.Batch]:
    """A gateway, and a batch of three shots and a damaged one that has ended there."""
    running = module_gateway(max_batch_shots=2)
    with running.connect() as connection:
        quality = pb.BatchQuality(max_warnings=0, min_dubbed_share=0.5)
        rows = [row(f"night_{name}", footage, quality=quality) for name, footage in NIGHT]
        begun = batch.submit(connection, "night", rows=rows).batch
        assert (begun.num_shots, begun.engine) == (4, pb.BATCH_ENGINE_GATEWAY)
        ended = batch_ended(connection, "night")
    return running, ended


@pytest.fixture
def at_night(night: tuple[RunningGateway, pb.Batch]) -> Iterator[Connection]:
    """A client of the gateway of `night`."""
    with night[0].connect() as connection:
        yield connection


def test_every_shot_is_dubbed_or_says_why_not(night: tuple[RunningGateway, pb.Batch], videos: Media) -> None:
    running, ended = night
    progress = ended.progress
    assert (progress.num_done, progress.num_undubbed, progress.num_failed, progress.num_waiting) == (2, 1, 1, 0)
    assert ended.progress.frames_per_second > 0
    with running.connect() as connection:
        shots = shots_of(connection, "night")
        assert list(shots) == ["night_a", "night_bad", "night_b", "night_c"]
        for name in ("a", "b", "c"):
            shot = shots[f"night_{name}"]
            state = pb.SHOT_STATE_UNDUBBED if name == "c" else pb.SHOT_STATE_DONE
            assert (shot.state, shot.output_uri) == (state, f"night_{name}.mp4")
            assert shot.output_sha256 == digest(videos, f"night_{name}.mp4")
            assert sum(reason.num_frames for reason in shot.reasons) == shot.num_frames > 0
        assert shots["night_c"].num_dubbed == 0
        assert "at least 25 are needed" in shots["night_c"].look[0], "its footage is too short to learn the person from"
        bad = shots["night_bad"]
        assert bad.state == pb.SHOT_STATE_FAILED
        assert DAMAGED in bad.error
        assert str(videos.root) not in bad.error
        assert not (videos.root / "night_bad.mp4").exists()
        # The same dub without a batch has the same bytes, its manifest aside.
        client.dub(connection, **dubbing("alone.mp4", footage=OTHER)).wait(timeout_s=120)
    assert media_sha256(videos.root / "alone.mp4") == media_sha256(videos.root / "night_b.mp4")


def line(start_s: float, speech: str = "speech.wav", **more: Any) -> dict[str, Any]:
    face = {} if "actor_id" in more else {"face_id": 0}
    return {"start_time": timedelta(seconds=start_s), "speech_uri": speech, **face, **more}


def scene_row(shot_id: str, *lines: dict[str, Any], **more: Any) -> pb.BatchRow:
    return batch.row(shot_id, footage=MINE, output=f"{shot_id}.mkv", codec="ffv1", personalize=False, lines=lines, **LABEL, **more)


@pytest.mark.long
def test_scenes_are_rows(gateway_factory: StartGateway, loop_thread: Any, videos: Media) -> None:
    """A scene in a batch is the scene of CreateDub. With one line changed, the row of that line alone is dubbed again."""
    running = gateway_factory(max_batch_shots=2)
    with running.connect() as connection:
        client.enrol(connection, **enrolment("spoken", footage=MINE)).wait(timeout_s=300)
        first, second = line(0.1, "short.wav", actor_id="spoken"), line(0.9, "short.wav", language="de")
        rows = [scene_row("two", first, second), scene_row("one", line(0.4, "short.wav"))]
        batch.submit(connection, "scenes", rows=rows)
        before = batch_ended(connection, "scenes")
        assert before.progress.num_done == 2, [shot.error for shot in shots_of(connection, "scenes").values()]
        plain = {"codec": "ffv1", "personalize": False, **LABEL}
        dub = client.dub(connection, footage=MINE, output="alone.mkv", lines=[first, second], **plain)
        alone = dub.wait(timeout_s=300)
        assert same_but_for_provenance(videos, "two.mkv", "alone.mkv")
        done = shots_of(connection, "scenes")
        assert done["two"].num_dubbed == alone.num_dubbed

        batch.submit(connection, "scenes", rows=rows)
        assert batch_ended(connection, "scenes").rows_sha256 == before.rows_sha256
        assert shots_of(connection, "scenes") == done

        changed = [scene_row("two", first, line(0.8, "short.wav", language="de")), rows[1]]
        batch.submit(connection, "scenes", rows=changed)
        after = batch_ended(connection, "scenes")
        again = shots_of(connection, "scenes")
        assert after.progress.num_done == 2
        assert after.rows_sha256 != before.rows_sha256
        assert again["one"] == done["one"]
        assert again["two"].output_sha256 != done["two"].output_sha256
        error = refusal(batch.submit, connection, "scenes", rows=[scene_row("two", first, seed=1), rows[1]])
        assert error.field == "batch_id"

        report = b"".join(piece.data for piece in batch.report(connection, "scenes", file="json"))
        assert json.loads(report)["shots"][0]["lines"] == ["0.1 spoken short.wav", "0.8 0 short.wav"]
        jobs = list((running.data / "jobs").iterdir())
        assert len(jobs) == 1, "the scenes of one video share a folder, which stays"
        client.erase_actor(connection, "spoken")
        assert not list((running.data / "jobs").iterdir())
    loop_thread.run(running.server.drain(grace_s=0))


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([line(0.0, "none.wav")], "rows[0].lines[0].speech_uri"),
        ([line(0.0), line(99.0)], "rows[0].lines[1].start"),
        ([line(0.0, "../speech.wav")], "rows[0].lines[0].speech_uri"),
        ([line(0.0, actor_id="missing")], "rows[0].lines[0].actor"),
        ([line(0.0, consent=consent_pb2.ConsentRecord(subject="x"))], "rows[0].lines[0].consent.granted_by"),
        ([line(0.0), line(0.2)], "rows[0].lines"),
        ([{"speech_uri": "speech.wav", "face_id": 0}], "rows[0].lines[0].start"),
    ],
)
def test_wrong_line_of_row_refused(at_night: Connection, lines: list[dict[str, Any]], field: str) -> None:
    error = refusal(batch.submit, at_night, "wrong", rows=[scene_row("a", *lines)])
    assert not [found for found in batch.list_batches(at_night) if resource_id(found.name) == "wrong"]
    assert [named for named, _ in error.violations] == [field]


def test_lines_of_manifest_stay_in_media_folder(at_night: Connection, videos: Media) -> None:
    fields = {"id": "a", "footage": MINE, "output": "a.mkv"}
    (videos.root / "scene").mkdir(exist_ok=True)
    (videos.root / "scene" / "lines.json").write_text(json.dumps([{"start": 0, "speech": "../../a.wav", "face": 0}]))
    for place, field in (("../lines.json", "lines"), ("scene/lines.json", "lines[0].speech")):
        manifest = json.dumps({**fields, "lines": place}).encode()
        error = refusal(batch.submit, at_night, "outside", manifest=manifest)
        assert [named for named, _ in error.violations] == [f"manifest[1].{field}"]


def test_lists_have_pages_and_filters(night: tuple[RunningGateway, pb.Batch]) -> None:
    running, ended = night
    with running.connect() as connection:
        assert [shot.row for shot in batch.list_shots(connection, "night", page_size=1)] == [0, 1, 2, 3]
        failed = list(batch.list_shots(connection, "night", states=["failed", "waiting"]))
        assert [resource_id(shot.name) for shot in failed] == ["night_bad"]
        marked = list(batch.list_shots(connection, "night", to_look_at=True))
        assert len(marked) == ended.progress.num_to_look_at + ended.progress.num_undubbed
        assert [resource_id(shot.name) for shot in batch.list_shots(connection, "night", states=["undubbed"])] == ["night_c"]
        (found,) = (one for one in batch.list_batches(connection, page_size=1) if resource_id(one.name) == "night")
        assert found.rows_sha256 == ended.rows_sha256
        assert not found.HasField("progress")


def test_report_equals_command_line_files(at_night: Connection, videos: Media) -> None:
    files: dict[str, bytes] = {}
    for piece in batch.report(at_night, "night"):
        files[piece.path] = files.get(piece.path, b"") + piece.data
    (alone,) = {piece.path for piece in batch.report(at_night, "night", file="json")}
    assert {"index.html", "shots.csv", "shots.json", "thumbnails/night_a.jpg"} <= set(files)
    assert alone == "shots.json"
    assert [line["id"] for line in csv.DictReader(files["shots.csv"].decode().splitlines())] == [f"night_{one}" for one, _ in NIGHT]
    assert json.loads(files["shots.json"])["shots"][0]["output"] == "night_a.mp4"
    assert files["thumbnails/night_a.jpg"].startswith(b"\xff\xd8")
    assert not any(str(videos.root).encode() in content for content in files.values())


def test_same_rows_resume_others_refused(at_night: Connection, videos: Media) -> None:
    quality = pb.BatchQuality(max_warnings=0, min_dubbed_share=0.5)
    rows = [row(f"night_{name}", footage, quality=quality) for name, footage in NIGHT]
    before = (videos.root / "night_a.mp4").stat()
    ended = batch_ended(at_night, "night")
    assert batch.submit(at_night, "night", rows=rows).batch.progress == ended.progress
    error = refusal(batch.submit, at_night, "night", rows=rows[:2])
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "batch_id")
    assert batch_ended(at_night, "night").progress == ended.progress
    after = (videos.root / "night_a.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_removed_video_dubbed_again(at_night: Connection, videos: Media) -> None:
    """A video that is gone is dubbed again by the next submission."""
    quality = pb.BatchQuality(max_warnings=0, min_dubbed_share=0.5)
    (videos.root / "night_c.mp4").rename(videos.root / "night_c_before.mp4")
    rows = [row(f"night_{name}", footage, quality=quality) for name, footage in NIGHT]
    batch.submit(at_night, "night", rows=rows)
    until(lambda: "made anew" in " ".join(shots_of(at_night, "night")["night_c"].warnings), seconds=240)
    assert same_but_for_provenance(videos, "night_c_before.mp4", "night_c.mp4")


def test_every_wrong_row_is_named(connection: Connection, videos: Media) -> None:
    """A manifest is checked whole and every wrong row is named."""
    good = {"id": "one", "footage": "footage.mp4", "output": "never.mp4"}
    lines = [
        good,
        {**good, "id": "two", "output": "never.mp4"},
        {**good, "id": "three", "footage": "../secret.mp4", "output": "three.mp4"},
        {**good, "id": "four", "footage": "s3://videos/x.mp4", "output": "four.mp4"},
        {**good, "id": "five", "footage": "https://example.com/x.mp4", "output": "five.mp4"},
        {**good, "id": "six", "output": "six.mp4", "actor": "nobody"},
        {**good, "id": "seven", "output": "seven.mp4", "colour": "red"},
        {**good, "id": "eight", "output": "eight.xyz"},
        {**good, "id": "nine", "output": "nine.mp4", "footage": str(videos.root.parent / "x.mp4")},
        # A caller starts no command of the gateway's machine.
        {**good, "id": "ten", "output": "ten.mp4", "say": "Good morning."},
    ]
    manifest = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"no json\n"
    expected = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    error = refusal(batch.submit, connection, "wrong", manifest=manifest)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [int(field.partition("[")[2].partition("]")[0]) for field, _ in error.violations] == expected
    assert error.field == "manifest[2].output"
    assert "10 mistakes" in error.message
    told = batch.submit(connection, "wrong", manifest=manifest, validate_only=True)
    assert not told.HasField("batch")
    fields = ("output", "footage", "footage", "footage", "actor", "colour", "output", "footage", "say", "row")
    assert [(one.line, one.field) for one in told.mistakes] == list(zip(expected, fields, strict=True))
    assert str(videos.root) not in " ".join(one.description for one in told.mistakes) + error.message
    rows = [row("one", "footage.mp4"), row("no name", "footage.mp4", "x.mp4"), row("two", "missing.mp4", method="none")]
    error = refusal(batch.submit, connection, "wrong", rows=rows)
    assert [field for field, _ in error.violations] == ["rows[1].shot_id", "rows[2].footage_uri"]
    assert not batch.submit(connection, "wrong", rows=rows[:1], validate_only=True).mistakes
    wide = row("wide", "footage.mp4", expressiveness=1.5)
    assert not batch.submit(connection, "wrong", rows=[wide], validate_only=True).mistakes
    wide.dub.expressiveness = 1.6
    assert refusal(batch.submit, connection, "wrong", rows=[wide]).field == "rows.dub.expressiveness"
    assert "no batch" in refusal(batch.get, connection, "wrong").message
    assert not (videos.root / "never.mp4").exists()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rows": []}, "rows"),
        ({"manifest": b"{}\n"}, "rows"),
        ({"profile": "gpu"}, "profile"),
        ({"workers": 3}, "workers"),
        ({"batch_id": "Not A Name"}, "batch_id"),
    ],
)
def test_a_submission_that_cannot_be_is_refused(connection: Connection, videos: Media, fields: dict[str, Any], field: str) -> None:
    wanted: dict[str, Any] = {"batch_id": "refused", "rows": [row("refused", "footage.mp4")], **fields}
    assert refusal(batch.submit, connection, **wanted).field == field


def test_unknown_batch_or_shot(night: tuple[RunningGateway, pb.Batch], at_night: Connection) -> None:
    running, _ = night
    for call in (batch.get, batch.cancel, batch.retry, batch.delete):
        error = refusal(call, at_night, "nothing")
        assert (error.code, error.reason, "no batch" in error.message) == (*NOT_FOUND, True)
        assert str(running.data) not in error.message
    for stream in (batch.watch, batch.report, batch.list_shots):
        error = refusal(stream, at_night, "nothing")
        assert (error.code, error.reason) == NOT_FOUND
    for call in (batch.cancel, batch.retry):
        error = refusal(call, at_night, "night", shot_ids=["unknown"])
        assert (error.code, error.reason, "no shot 'unknown'" in error.message) == (*NOT_FOUND, True)
    error = refusal(batch.get, at_night, "Not A Name")
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "name")


@pytest.mark.long
def test_shots_are_cancelled_retried_and_removed(start_gateway, videos, long_footage, monkeypatch) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.2)
    running = start_gateway()
    with running.connect() as connection:
        rows = [row("day_one", long_footage), row("day_two", OTHER), row("day_three", THIRD)]
        batch.submit(connection, "day", rows=rows)
        until(lambda: shots_of(connection, "day")["day_one"].state == pb.SHOT_STATE_RUNNING, seconds=240)
        assert "not ended" in refusal(batch.delete, connection, "day").message
        assert "is running" in refusal(batch.retry, connection, "day", shot_ids=["day_one"]).message
        batch.cancel(connection, "day", shot_ids=["day_three"])
        batch.cancel(connection, "day", shot_ids=["day_one"])
        ended = batch_ended(connection, "day")
        assert (ended.progress.num_done, ended.progress.num_cancelled) == (1, 2)
        states = {name: shot.state for name, shot in shots_of(connection, "day").items()}
        assert states["day_two"] == pb.SHOT_STATE_DONE
        assert not (videos.root / "day_one.mp4").exists()

        batch.retry(connection, "day", shot_ids=["day_three"])
        ended = batch_ended(connection, "day")
        assert (ended.progress.num_done, ended.progress.num_undubbed, ended.progress.num_cancelled) == (1, 1, 1)
        batch.retry(connection, "day", shot_ids=["day_one"])
        until(lambda: shots_of(connection, "day")["day_one"].state == pb.SHOT_STATE_RUNNING, seconds=240)
        batch.cancel(connection, "day")
        assert batch_ended(connection, "day").progress.num_cancelled == 1

        batch.delete(connection, "day")
        assert [resource_id(one.name) for one in batch.list_batches(connection)] == []
        assert (videos.root / "day_two.mp4").exists()


@pytest.mark.long
def test_batch_survives_gateway_restart(start_gateway: StartGateway, stop_gateway: Any, videos: Media, tmp_path: Path) -> None:
    first = start_gateway(data_dir=tmp_path)
    with first.connect() as connection:
        rows = [row("restart_one", MINE), row("restart_two", THIRD, "new/folder/restart_two.mp4")]
        batch.submit(connection, "restart", rows=rows)
        until(lambda: shots_of(connection, "restart")["restart_one"].state == pb.SHOT_STATE_RUNNING, seconds=240)
    stop_gateway(first)
    with start_gateway(data_dir=tmp_path).connect() as connection:
        shots = shots_of(connection, "restart")
        ended = batch_ended(connection, "restart")
        assert (ended.progress.num_done, ended.progress.num_undubbed, ended.progress.num_failed) == (1, 1, 0)
        # The attempt that the restart ended does not count.
        assert {shot.attempts for shot in shots_of(connection, "restart").values()} == {1}
        assert set(shots) == {"restart_one", "restart_two"}


def test_operations_show_no_work_of_batches(at_night: Connection) -> None:
    assert {step_name(state.progress.step) for state in client.list_operations(at_night)} <= {"dub"}


def test_gateway_busy_until_shots_end(start_gateway: StartGateway, videos: Media) -> None:
    running = start_gateway()

    def work() -> set[float | None]:
        sample = running.server.metrics.registry.get_sample_value
        # An autoscaler that lets stages rest at zero replicas starts each stage by this metric.
        stages = {sample("dubstage_stage_operations", {"stage": stage}) for stage in STAGE_NAMES}
        return {sample("dubstage_operations"), *stages}

    with running.connect() as connection:
        assert work() == {0}
        batch.submit(connection, "work", rows=[row("work_one", THIRD)])
        assert work() == {1}
        batch_ended(connection, "work")
        # The samples are read one after the other, and the work may end between two of them.
        until(lambda: work() == {0}, seconds=60)
