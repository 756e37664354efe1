"""The store of batches in a folder: created once, read by many, and never half written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dubstage.gateway.v1.dub_pb2 import EXPRESSION_NEUTRAL, ShotOptions
from gateway.batch.store import BatchStore, Folder, open_batches
from gateway.batch.types import EarlierVideo, Manifest, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.settings import GatewaySettings
from services.common.errors import ArtefactCorruptError, BatchNotFoundError, InvalidRequestError, StorageRefusedError
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import changed_shot, shot_of_row

SHOTS = [shot_of_row(id=f"s{number}", footage="/plate.mp4", output=f"/out/{number}.mp4") for number in range(6)]
NIGHT = manifest_of("night", SHOTS)


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    store = open_store(tmp_path / "batches [1]")
    store.create(NIGHT, "local")
    return store


@pytest.fixture
def folder(store: BatchStore, tmp_path: Path) -> Path:
    """Folder of the batch."""
    return tmp_path / "batches [1]" / "night"


def test_a_batch_is_created_once_and_opened_again(store: BatchStore) -> None:
    facts = store.set_details("night", {"jobs": ["a"]})
    assert (facts.name, facts.rows, facts.manifest_sha256, facts.engine) == ("night", 6, NIGHT.sha256, "local")
    again = BatchStore(store.database)
    assert again.create(NIGHT, "farm") == facts == again.facts("night")
    assert again.manifest("night") == SHOTS
    assert [record.state for record in again.records("night")] == [ShotState.WAITING] * 6


def test_another_manifest_under_the_name_is_refused(store: BatchStore) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"batch night exists in file:.* with another manifest: choose another --name"
    ) as caught:
        store.create(manifest_of("night", SHOTS[:5]), "local")
    assert caught.value.field == "name"
    store.create(manifest_of("night-2", SHOTS[:5]), "local")
    assert names_of(store) == ["night", "night-2"]
    assert (len(store.manifest("night")), len(store.manifest("night-2"))) == (6, 5)


def test_concurrent_creators_share_batch(tmp_path: Path) -> None:
    """All creators that start at the same time see the same batch."""

    def create(number: int) -> str:
        manifest: Manifest = manifest_of("night", SHOTS[: 3 + number % 2])
        try:
            return repr(open_store(tmp_path).create(manifest, "farm"))
        except InvalidRequestError:
            return ""

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(create, range(16)))
    assert sorted(map(bool, made)) == [False] * 8 + [True] * 8
    assert len(set(made)) == 2
    assert open_store(tmp_path).facts("night").rows == len(open_store(tmp_path).manifest("night"))
    assert sorted(path.name for path in (tmp_path / "night").iterdir()) == ["batch.json", "manifest.jsonl"]


def test_dead_creators_batch_is_completed(store: BatchStore, folder: Path) -> None:
    """A batch whose creator died is completed by the next."""
    (folder / "batch.json").unlink()
    assert names_of(store) == []
    assert BatchStore(store.database).find("night") is None
    assert store.create(NIGHT, "farm").engine == "farm"
    assert names_of(store) == ["night"]


def test_records_come_in_the_order_of_the_rows(store: BatchStore) -> None:
    done = ShotRecord(id="s4", state=ShotState.DONE, frames=25, frames_by_reason={"DUBBED": 25}, warnings=("a",), r_opening=0.9)
    store.put("night", done)
    store.put("night", ShotRecord(id="s1", state=ShotState.FAILED, error="no face"))
    records = BatchStore(store.database).records("night")
    assert [record.id for record in records] == [shot.id for shot in SHOTS]
    assert (records[4], store.record("night", "s4")) == (done, done)
    assert (records[1].error, records[0]) == ("no face", ShotRecord(id="s0"))


def test_only_changed_records_read_again(store: BatchStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of other processes are seen and unchanged ones are not read again."""
    read: list[str] = []
    plain = Folder.read_all

    def noted(self: Folder, paths: Sequence[str]) -> dict[str, bytes]:
        read.extend(path.rpartition("/")[2] for path in paths)
        return plain(self, paths)

    for shot in SHOTS:
        store.put("night", ShotRecord(id=shot.id, frames=1))
    assert sum(record.frames for record in store.records("night")) == 6
    BatchStore(store.database).put("night", ShotRecord(id="s2", frames=100))
    monkeypatch.setattr(Folder, "read_all", noted)
    assert [record.frames for record in store.records("night")] == [1, 1, 100, 1, 1, 1]
    assert read == ["s2.json"]
    (folder / "shots" / "s4.json").unlink()
    assert [record.frames for record in store.records("night")] == [1, 1, 100, 1, 0, 1]


def test_reset_restores_cancelled_shots(store: BatchStore) -> None:
    """Cancelled shots do not wait and wait again after a reset."""
    store.put("night", ShotRecord(id="s0", state=ShotState.DONE))
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, attempts=1))
    store.cancel("night", [shot.id for shot in SHOTS])
    states = [record.state for record in store.records("night")]
    assert states == [ShotState.DONE, ShotState.RUNNING, *[ShotState.CANCELLED] * 4]
    assert store.record("night", "s5").state is ShotState.CANCELLED
    assert BatchStore(store.database).is_cancelled("night", "s1")
    store.reset("night", ["s1", "s5"])
    assert (store.record("night", "s1"), store.record("night", "s5")) == (ShotRecord(id="s1"), ShotRecord(id="s5"))
    assert not store.is_cancelled("night", "s5")
    assert store.cancelled("night") == {"s0", "s2", "s3", "s4"}
    store.uncancel("night", ["s2", "s5"])
    assert store.record("night", "s2").state is ShotState.WAITING


def test_two_cancels_at_once_lose_none(store: BatchStore) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda shot: BatchStore(store.database).cancel("night", [shot.id]), SHOTS))
    assert store.cancelled("night") == {shot.id for shot in SHOTS}


def test_thumbnails_lie_beside_the_records(store: BatchStore) -> None:
    store.put_thumbnail("night", "s1", b"one")
    store.put_thumbnail("night", "s2", b"two")
    assert (store.thumbnail("night", "s1"), store.thumbnail("night", "s3")) == (b"one", None)
    assert store.thumbnails("night", ["s1", "s2", "s3"]) == {"s1": b"one", "s2": b"two"}
    assert store.records("night")[1] == ShotRecord(id="s1")


@pytest.mark.parametrize("name", ["none", "../night", "", "NIGHT", "night/shots"])
def test_missing_batch_lists_batches(store: BatchStore, name: str) -> None:
    """A missing batch is reported with those that there are."""
    with pytest.raises(BatchNotFoundError, match=r"no batch .* in file:.*; there are: night") as caught:
        store.facts(name)
    assert caught.value.resource == name
    with pytest.raises(BatchNotFoundError, match="no batch"):
        store.records(name)


def test_a_missing_shot_is_told(store: BatchStore) -> None:
    for use in (
        lambda: store.record("night", "x"),
        lambda: store.cancel("night", ["s1", "x", "y"]),
        lambda: store.reset("night", ["x"]),
    ):
        with pytest.raises(BatchNotFoundError, match="batch night has no shot 'x'") as caught:
            use()
        assert caught.value.resource == "night/x"
    assert store.cancelled("night") == frozenset()


def test_damaged_files_are_told_by_name(store: BatchStore, folder: Path) -> None:
    (folder / "shots").mkdir()
    (folder / "shots" / "s1.json").write_text('{"id": "s1", "state": "sleeping"}')
    with pytest.raises(
        ArtefactCorruptError, match=r"s1\.json is damaged \(state: .*: restore the file from a backup, or remove the file"
    ):
        store.record("night", "s1")
    (folder / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(
        ArtefactCorruptError, match=r"manifest\.jsonl is damaged \(id: Field required\): .*, or remove the folder .*/night$"
    ):
        BatchStore(store.database).manifest("night")
    (folder / "batch.json").write_text("")
    with pytest.raises(ArtefactCorruptError, match=r"batch\.json is damaged"):
        names_of(store)


def test_other_folders_are_no_batches(store: BatchStore, folder: Path) -> None:
    (folder.parent / "Other Things").mkdir()
    (folder.parent / "empty").mkdir()
    (folder.parent / ".hidden").write_text("")
    assert names_of(store) == ["night"]
    assert open_store(folder.parent / "missing").names() == []


def test_wrong_folder_names_setting(tmp_path: Path) -> None:
    """A place that is no folder is refused with the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageRefusedError, match=r"the store of batches file:.*/file cannot be used: .*point DUBSTAGE_BATCHES_URL"
    ):
        open_store(tmp_path / "file").create(NIGHT, "local")
    with pytest.raises(InvalidRequestError, match="cannot open the store of batches carrier-pigeon://x") as caught:
        BatchStore("carrier-pigeon://x/y")
    assert caught.value.field == "DUBSTAGE_BATCHES_URL"


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data")
    assert open_batches(settings).url == f"file://{tmp_path}/data/batches"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    elsewhere = load_settings(GatewaySettings, data_dir=tmp_path / "data", batches_url=f"file://{tmp_path}/shared")
    assert open_batches(elsewhere).url == f"file://{tmp_path}/shared"


def test_removal_deletes_everything(store: BatchStore, folder: Path) -> None:
    """A batch is removed with all of its records."""
    store.put("night", ShotRecord(id="s1", state=ShotState.DONE))
    store.put_thumbnail("night", "s1", b"picture")
    store.cancel("night", ["s2"])
    store.remove("night")
    assert not folder.exists()
    assert names_of(store) == []
    # The name is free, and nothing of the older batch comes back.
    BatchStore(store.database).create(manifest_of("night", SHOTS[:3]), "gateway")
    assert [record.state for record in BatchStore(store.database).records("night")] == [ShotState.WAITING] * 3


def test_interrupted_removal_is_completed(store: BatchStore, folder: Path) -> None:
    """A removal that was cut is completed by the next creator."""
    store.put("night", ShotRecord(id="s1", state=ShotState.DONE))
    facts = store.facts("night").model_copy(update={"removing": True})
    (folder / "batch.json").write_text(facts.model_dump_json())
    fresh = BatchStore(store.database)
    assert not fresh.create(manifest_of("night", SHOTS[:3]), "local").removing
    assert [record.state for record in fresh.records("night")] == [ShotState.WAITING] * 3


def scene(*starts: float, **more: Any) -> ShotSpec:
    lines = [{"start": start, "speech": "/a.wav", "face": 0} for start in starts]
    return shot_of_row(**{"id": "a", "footage": "/plate.mp4", "output": "/a.mp4", "lines": lines, **more})


def test_changed_lines_begin_anew(tmp_path: Path) -> None:
    """Shots whose lines are unchanged stay done. Other changes of done shots, and shots that have not ended, are refused."""
    plain = shot_of_row(id="b", footage="/plate.mp4", output="/b.mp4")
    store = open_store(tmp_path)
    before = store.create(manifest_of("night", [scene(1, 5), plain]), "local")
    changed = manifest_of("night", [scene(1, 6), plain])
    with pytest.raises(InvalidRequestError, match="has other lines, and 2 of its shots have not ended"):
        store.revise(changed)
    for name in ("a", "b"):
        store.put("night", ShotRecord(id=name, state=ShotState.DONE))
    for other in ([scene(1, 6, seed=1), plain], [scene(), plain]):
        with pytest.raises(InvalidRequestError, match=r"shots that are done and whose rows differ: a\. Restore these rows"):
            store.revise(manifest_of("night", other))
    assert store.revise(manifest_of("night", [scene(1, 6)])) == []
    assert store.revise(changed) == ["a"]
    assert [record.state for record in store.records("night")] == [ShotState.WAITING, ShotState.DONE]
    assert store.manifest("night") == list(changed.shots)
    assert store.create(changed, "local") == before.model_copy(update={"manifest_sha256": changed.sha256})
    assert store.revise(changed) == []


@pytest.mark.parametrize("state", [ShotState.WAITING, ShotState.FAILED, ShotState.CANCELLED, ShotState.UNDUBBED])
def test_rows_that_are_not_done_may_change(tmp_path: Path, state: ShotState) -> None:
    """A changed row begins anew if its shot is not done, and nothing runs. Done shots stay."""
    done, other = (shot_of_row(id=name, footage="/plate.mp4", output=f"/{name}.mp4") for name in "ab")
    store = open_store(tmp_path)
    store.create(manifest_of("night", [done, other]), "local")
    store.put("night", ShotRecord(id="a", state=ShotState.DONE))
    store.put("night", ShotRecord(id="b", state=ShotState.RUNNING))
    changed = manifest_of("night", [done, changed_shot(other, method="headpose")])
    with pytest.raises(InvalidRequestError, match="has other rows, and 1 of its shots are running: wait, or cancel"):
        store.revise(changed)
    store.put("night", ShotRecord(id="b", state=state))
    assert store.revise(changed) == ["b"]
    assert [record.state for record in store.records("night")] == [ShotState.DONE, ShotState.WAITING]
    assert store.manifest("night") == list(changed.shots)
    store.put("night", ShotRecord(id="b", state=ShotState.RUNNING))
    assert store.revise(manifest_of("night", [done, other]), is_idle=True) == ["b"], "the worker died"


def test_waiting_rows_of_a_cluster_stay(tmp_path: Path) -> None:
    """A pod may begin a waiting shot at any time, so that its row cannot be changed."""
    plain = shot_of_row(id="a", footage="/plate.mp4", output="/a.mp4")
    store, changed = open_store(tmp_path), manifest_of("night", [changed_shot(plain, seed=1)])
    store.create(manifest_of("night", [plain]), "kubernetes")
    with pytest.raises(InvalidRequestError, match="has other rows, and 1 of its shots are running"):
        store.revise(changed)
    store.put("night", ShotRecord(id="a", state=ShotState.FAILED))
    assert store.revise(changed) == ["a"]


def test_changed_options_hold_everywhere(store: BatchStore, folder: Path) -> None:
    """Changed options reach stores that have read the batch before, stay when others change, and leave the manifest as it was."""
    other = BatchStore(store.database)
    assert other.manifest("night") == SHOTS
    store.set_options("night", "s2", ShotOptions(expressiveness=1.2))
    store.set_options("night", "s2", ShotOptions(expression=EXPRESSION_NEUTRAL, seed=3))
    assert other.options("night", 2) == {"expressiveness": 1.2, "expression": "EXPRESSION_NEUTRAL", "seed": 3}
    changed = changed_shot(SHOTS[2], expressiveness=1.2, expression="neutral", seed=3)
    assert other.shot("night", 2) == other.manifest("night")[2] == changed
    assert [shot for row, shot in enumerate(other.manifest("night")) if row != 2] == [*SHOTS[:2], *SHOTS[3:]]
    assert store.create(NIGHT, "local").manifest_sha256 == NIGHT.sha256, "the same rows go on with the batch"
    with pytest.raises(BatchNotFoundError, match="no shot 's9'"):
        store.set_options("night", "s9", ShotOptions())
    store.remove("night")
    assert not folder.exists()


def test_the_video_before_a_retry_stays_until_the_next_one(store: BatchStore, tmp_path: Path) -> None:
    """The earlier video keeps its content when the shot's video is replaced, may be downloaded, and goes with the batch."""
    video, earlier = tmp_path / "s.mp4", tmp_path / ".earlier-s.mp4"
    shots = [shot_of_row(id="a", footage="/plate.mp4", output=str(video)), SHOTS[1]]
    store.create(manifest_of("redo", shots), "local")
    for number in (1, 2, 3):
        done = ShotRecord(id="a", state=ShotState.DONE, output=str(video), output_sha256=f"{number}", options={"seed": number})
        store.put("redo", done)
        fresh = tmp_path / "fresh"
        fresh.write_text(f"video {number}")
        fresh.replace(video)
        if number == 3:
            break
        store.keep_videos("redo", ["a", "s1"])
        store.reset("redo", ["a"])
        store.keep_videos("redo", ["a"])  # the shot has no new video yet
        assert store.has_written(str(earlier))
        assert not store.has_written(str(video))
    kept = store.earlier("redo", "a")
    assert kept == EarlierVideo(place=str(earlier), output=str(video), sha256="2", options={"seed": 2})
    assert (earlier.read_text(), video.read_text()) == ("video 2", "video 3")
    assert store.earlier("redo", "s1") is None
    store.remove("redo")
    assert (earlier.exists(), video.exists()) == (False, True)
    assert not store.has_written(str(earlier))


def test_footage_of_a_dubbed_shot_is_known(store: BatchStore, tmp_path: Path) -> None:
    """Footage counts while one of its shots has a video or an earlier video; a path that is part of another's does not count."""
    video = tmp_path / "s.mp4"
    video.write_text("video")
    assert not store.has_dubbed("/plate.mp4")
    store.put("night", ShotRecord(id="s4", state=ShotState.FAILED))
    assert not store.has_dubbed("/plate.mp4")
    store.put("night", ShotRecord(id="s5", state=ShotState.DONE, output=str(video), output_sha256="1"))
    assert store.has_dubbed("/plate.mp4")
    assert not any(store.has_dubbed(place) for place in ("/out/5.mp4", "plate.mp4", "/plate.mp", "/other.mp4"))
    store.keep_videos("night", ["s5"])
    store.reset("night", ["s5"])
    assert store.has_dubbed("/plate.mp4"), "the page of the shot shows the earlier video"
    store.remove("night")
    assert not store.has_dubbed("/plate.mp4")


def test_an_earlier_video_that_is_gone_is_not_told(store: BatchStore, tmp_path: Path) -> None:
    video = tmp_path / "s.mp4"
    video.write_text("video")
    store.put("night", ShotRecord(id="s1", state=ShotState.DONE, output=str(video), output_sha256="1"))
    store.keep_videos("night", ["s1"])
    (tmp_path / ".earlier-s.mp4").unlink()
    assert store.earlier("night", "s1") is None
    store.remove_earlier("night", ["s1"])
    assert store.all_earlier("night", ["s1"]) == {}


def test_no_other_file_is_removed_as_an_earlier_video(store: BatchStore, folder: Path, tmp_path: Path) -> None:
    """A document of the store names the earlier video of its shot, and no other file."""
    (tmp_path / "other.txt").write_text("another's")
    named = EarlierVideo(place=str(tmp_path / "other.txt"), output=str(tmp_path / "s.mp4"), sha256="1", options={})
    (folder / "earlier").mkdir()
    (folder / "earlier" / "s1.json").write_text(named.model_dump_json())
    assert store.earlier("night", "s1") is None
    store.remove_earlier("night", ["s1"])
    assert (tmp_path / "other.txt").exists()


@pytest.mark.parametrize("content", ['{"expressiveness": 9}', '{"output": "/x.mp4"}', "[]", "{"])
def test_damaged_options_are_told(store: BatchStore, folder: Path, content: str) -> None:
    (folder / "options").mkdir()
    (folder / "options" / "s1.json").write_text(content)
    for read in (lambda: store.shot("night", 1), lambda: store.manifest("night")):
        with pytest.raises(ArtefactCorruptError, match=r"options/s1.json is damaged.*or remove the file"):
            read()
