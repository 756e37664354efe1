"""The store of batches: created once, read and changed by many, each change whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from dubstage.gateway.v1.dub_pb2 import EXPRESSION_NEUTRAL, ShotOptions
from gateway.batch import store as batch_store
from gateway.batch.lists import ShotQuery
from gateway.batch.records import progress_from
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.risk import risk_of
from gateway.batch.store import BatchStore, open_batches
from gateway.batch.types import EarlierVideo, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.database.tables import BatchShotRow
from gateway.settings import GatewaySettings
from services.common.errors import BatchNotFoundError, InvalidRequestError, StorageRefusedError
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import changed_shot, progress_of, shot_of_row

SHOTS = [shot_of_row(id=f"s{number}", footage="/plate.mp4", output=f"/out/{number}.mp4") for number in range(6)]
NIGHT = manifest_of("night", SHOTS)
TIME = "2026-11-26T10:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    store = open_store(tmp_path)
    store.create(NIGHT, "local")
    return store


def done(shot_id: str, frames: int = 10, **more: Any) -> ShotRecord:
    times = {"begun_at": TIME, "ended_at": "2026-11-26T10:00:30.000Z", "output_sha256": f"{frames:064x}"}
    return ShotRecord(id=shot_id, state=ShotState.DONE, frames=frames, frames_dubbed=5, **{**times, **more})


def decision(shot_id: str, state: ReviewState, frames: int = 10, assignee: str = "") -> Decision:
    return Decision(id=shot_id, state=state, decided_at=TIME, output_sha256=f"{frames:064x}", assignee=assignee)


def spoil(store: BatchStore, shot_id: str, **columns: str) -> None:
    """Write other texts to the row of a shot."""
    with store.database.writing() as session:
        session.execute(update(BatchShotRow).where(BatchShotRow.shot_id == shot_id).values(**columns))


def test_a_batch_is_created_once_and_opened_again(store: BatchStore) -> None:
    store.set_details("night", {"jobs": ["a"]})
    facts = store.facts("night")
    assert (facts.name, facts.rows, facts.manifest_sha256, facts.engine) == ("night", 6, NIGHT.sha256, "local")
    again = BatchStore(store.database)
    assert again.create(NIGHT, "farm") == facts == again.facts("night")
    assert again.manifest("night") == SHOTS
    assert [record.state for record in again.records("night")] == [ShotState.WAITING] * 6


def test_another_manifest_under_the_name_is_refused(store: BatchStore) -> None:
    with pytest.raises(InvalidRequestError, match="batch night exists with another manifest: choose another batch_id") as caught:
        store.create(manifest_of("night", SHOTS[:5]), "local")
    assert caught.value.field == "name"
    store.create(manifest_of("night-2", SHOTS[:5]), "local")
    assert names_of(store) == ["night", "night-2"]
    assert (len(store.manifest("night")), len(store.manifest("night-2"))) == (6, 5)


def test_concurrent_creators_share_batch(tmp_path: Path) -> None:
    """All creators that start at the same time see the same batch."""
    stores = [open_store(tmp_path) for _ in range(4)]

    def create(number: int) -> str:
        try:
            return repr(stores[number % 4].create(manifest_of("night", SHOTS[: 3 + number % 2]), "farm"))
        except InvalidRequestError:
            return ""

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(create, range(16)))
    assert sorted(map(bool, made)) == [False] * 8 + [True] * 8
    assert len(set(made)) == 2
    assert stores[0].facts("night").rows == len(stores[0].manifest("night"))


def test_records_come_in_the_order_of_the_rows(store: BatchStore) -> None:
    ended = ShotRecord(id="s4", state=ShotState.DONE, frames=25, frames_by_reason={"DUBBED": 25}, warnings=("a",), r_opening=0.9)
    store.put("night", ended)
    store.put("night", ShotRecord(id="s1", state=ShotState.FAILED, error="no face"))
    records = BatchStore(store.database).records("night")
    assert [record.id for record in records] == [shot.id for shot in SHOTS]
    assert (records[4], store.record("night", "s4")) == (ended, ended)
    assert (records[1].error, records[0]) == ("no face", ShotRecord(id="s0"))
    assert store.records_of("night", ["s4", "s1"]) == [ended, records[1]]
    assert store.left("night").keys() == {0, 2, 3, 5}


def test_only_holder_stores_record(store: BatchStore) -> None:
    """A worker that has lost its shot stores nothing, and a record that was written meanwhile stays."""
    spoil(store, "s1", holder="a", held_until="9e12")
    assert not store.put("night", done("s1"), holder="b")
    assert store.put("night", done("s1"), holder="a")
    assert not store.put("night", ShotRecord(id="s1"), before=ShotRecord(id="s1"))
    assert store.put("night", ShotRecord(id="s1"), before=done("s1"))
    assert not store.put("night", done("s1"), holder="a"), "the lease has ended with the shot"


def test_reset_restores_cancelled_shots(store: BatchStore) -> None:
    """Cancelled shots do not wait and wait again after a reset."""
    store.put("night", ShotRecord(id="s0", state=ShotState.DONE))
    store.put("night", ShotRecord(id="s1", state=ShotState.RUNNING, attempts=1))
    assert store.cancel("night") == 5
    states = [record.state for record in store.records("night")]
    assert states == [ShotState.DONE, ShotState.RUNNING, *[ShotState.CANCELLED] * 4]
    assert store.record("night", "s5").state is ShotState.CANCELLED
    assert store.is_cancelled("night", "s1")
    store.reset("night", ["s1", "s5"])
    assert (store.record("night", "s1"), store.record("night", "s5")) == (ShotRecord(id="s1"), ShotRecord(id="s5"))
    assert not store.is_cancelled("night", "s5")
    assert store.cancelled("night") == {"s2", "s3", "s4"}


def test_two_cancels_at_once_lose_none(store: BatchStore) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda shot: store.cancel("night", [shot.id]), SHOTS))
    assert store.cancelled("night") == {shot.id for shot in SHOTS}


def test_thumbnails_lie_beside_the_records(store: BatchStore) -> None:
    for jpeg in (b"old", b"one"):
        store.put_thumbnail("night", "s1", jpeg)
    store.put_thumbnail("night", "s2", b"two")
    assert (store.thumbnail("night", "s1"), store.thumbnail("night", "s3")) == (b"one", None)
    assert store.thumbnails("night", ["s1", "s2", "s3"]) == {"s1": b"one", "s2": b"two"}
    assert store.records("night")[1] == ShotRecord(id="s1")
    store.remove_thumbnails("night", ["s1"])
    assert store.thumbnails("night", ["s1", "s2"]) == {"s2": b"two"}


@pytest.mark.parametrize("name", ["none", "../night", "", "NIGHT", "night/shots", "night\0"])
def test_missing_batch_lists_batches(store: BatchStore, name: str) -> None:
    """A missing batch is reported with those that there are."""
    with pytest.raises(BatchNotFoundError, match=r"no batch .* in sqlite:.*; there are: night\. .*DUBSTAGE_DATABASE_URL") as caught:
        store.facts(name)
    assert caught.value.resource == name
    with pytest.raises(BatchNotFoundError, match="no batch"):
        store.records(name)


def test_a_missing_shot_is_told(store: BatchStore) -> None:
    for use in (
        lambda: store.record("night", "x"),
        lambda: store.cancel("night", ["s1", "x", "y"]),
        lambda: store.reset("night", ["x"]),
        lambda: store.put("night", ShotRecord(id="x")),
    ):
        with pytest.raises(BatchNotFoundError, match="batch night has no shot 'x'") as caught:
            use()
        assert caught.value.resource == "night/x"
    assert store.cancelled("night") == frozenset()
    with pytest.raises(BatchNotFoundError, match="no shot 's1"):
        store.record("night", "s1\0")


def test_damaged_rows_are_told(store: BatchStore) -> None:
    spoil(store, "s1", record='{"id": "s1", "state": "sleeping"}')
    with pytest.raises(StorageRefusedError, match=r"is damaged \(ShotRecord of shot s1: .*restore it from a backup"):
        store.record("night", "s1")


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data")
    with open_batches(settings) as store:
        assert store.where.endswith("data/dubstage.sqlite") or "data" in store.where
        assert not store.is_shared
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_removal_deletes_everything(store: BatchStore) -> None:
    """A batch is removed with all of its records."""
    store.put("night", ShotRecord(id="s1", state=ShotState.DONE))
    store.put_thumbnail("night", "s1", b"picture")
    store.decide("night", Decision(id="s1", state=ReviewState.APPROVED, decided_at=TIME))
    store.cancel("night", ["s2"])
    store.remove("night")
    assert names_of(store) == []
    # The name is free, and nothing of the older batch comes back.
    store.create(manifest_of("night", SHOTS[:3]), "gateway")
    assert [record.state for record in store.records("night")] == [ShotState.WAITING] * 3
    assert (store.thumbnail("night", "s1"), store.all_decisions("night")) == (None, {})


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


def test_words_are_stored(tmp_path: Path) -> None:
    """Every reader of a shot has its words, and other words begin the shot anew."""
    first, second = (shot_of_row(id="a", footage="/plate.mp4", output="/a.mp4", say=say, voice="ann") for say in ("Hi", "Hello"))
    store = open_store(tmp_path)
    store.create(manifest_of("night", [first]), "local")
    assert store.shot("night", 0) == store.manifest("night")[0] == store.shots("night")[0].shot == first
    assert store.revise(manifest_of("night", [second])) == ["a"]
    assert store.shot("night", 0) == second


@pytest.mark.parametrize("state", [ShotState.WAITING, ShotState.FAILED, ShotState.CANCELLED, ShotState.UNDUBBED])
def test_rows_that_are_not_done_may_change(tmp_path: Path, state: ShotState) -> None:
    """A changed row begins anew if its shot is not done, and nothing runs. Done shots stay."""
    ended, other = (shot_of_row(id=name, footage="/plate.mp4", output=f"/{name}.mp4") for name in "ab")
    store = open_store(tmp_path)
    store.create(manifest_of("night", [ended, other]), "local")
    store.put("night", ShotRecord(id="a", state=ShotState.DONE))
    store.put("night", ShotRecord(id="b", state=ShotState.RUNNING))
    changed = manifest_of("night", [ended, changed_shot(other, method="portrait", actor="ada")])
    with pytest.raises(InvalidRequestError, match="has other rows, and 1 of its shots are running: wait, or cancel"):
        store.revise(changed)
    store.put("night", ShotRecord(id="b", state=state))
    assert store.revise(changed) == ["b"]
    assert [record.state for record in store.records("night")] == [ShotState.DONE, ShotState.WAITING]
    assert store.manifest("night") == list(changed.shots)
    assert store.shots_of_actor("ada") == {"night": ["b"]}
    store.put("night", ShotRecord(id="b", state=ShotState.RUNNING))
    assert store.revise(manifest_of("night", [ended, other]), is_idle=True) == ["b"], "the worker died"
    assert store.shots_of_actor("ada") == {}


def test_waiting_rows_of_a_cluster_stay(tmp_path: Path) -> None:
    """A pod may begin a waiting shot at any time, so that its row cannot be changed."""
    plain = shot_of_row(id="a", footage="/plate.mp4", output="/a.mp4")
    store, changed = open_store(tmp_path), manifest_of("night", [changed_shot(plain, seed=1)])
    store.create(manifest_of("night", [plain]), "kubernetes")
    with pytest.raises(InvalidRequestError, match="has other rows, and 1 of its shots are running"):
        store.revise(changed)
    store.put("night", ShotRecord(id="a", state=ShotState.FAILED))
    assert store.revise(changed) == ["a"]


def test_changed_options_hold_everywhere(store: BatchStore) -> None:
    """Changed options stay when others change, and leave the manifest as it was."""
    store.set_options("night", "s2", ShotOptions(expressiveness=1.2))
    store.set_options("night", "s2", ShotOptions(expression=EXPRESSION_NEUTRAL, seed=3))
    assert store.options("night", "s2") == {"expressiveness": 1.2, "expression": "EXPRESSION_NEUTRAL", "seed": 3}
    changed = changed_shot(SHOTS[2], expressiveness=1.2, expression="neutral", seed=3)
    assert store.shot("night", 2) == store.manifest("night")[2] == changed
    assert [shot for row, shot in enumerate(store.manifest("night")) if row != 2] == [*SHOTS[:2], *SHOTS[3:]]
    assert store.shots("night")[2].shot == SHOTS[2]
    assert store.create(NIGHT, "local").manifest_sha256 == NIGHT.sha256, "the same rows go on with the batch"
    with pytest.raises(BatchNotFoundError, match="no shot 's9'"):
        store.set_options("night", "s9", ShotOptions())


@pytest.mark.parametrize("content", ['{"output": "/x.mp4"}', "[]", "{"])
def test_damaged_options_are_told(store: BatchStore, content: str) -> None:
    spoil(store, "s1", options=content)
    for read in (lambda: store.shot("night", 1), lambda: store.manifest("night")):
        with pytest.raises(StorageRefusedError, match=r"is damaged \(options of shot s1"):
            read()


def test_the_video_before_a_retry_stays_until_the_next_one(store: BatchStore, tmp_path: Path) -> None:
    """The earlier video keeps its content when the shot's video is replaced, may be downloaded, and goes with the batch."""
    video, earlier = tmp_path / "s.mp4", tmp_path / ".earlier-s.mp4"
    shots = [shot_of_row(id="a", footage="/plate.mp4", output=str(video)), SHOTS[1]]
    store.create(manifest_of("redo", shots), "local")
    for number in (1, 2, 3):
        record = ShotRecord(id="a", state=ShotState.DONE, output=str(video), output_sha256=f"{number}", options={"seed": number})
        store.put("redo", record)
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
    kept = store.earlier("redo", ["a", "s1"])
    assert kept == {"a": EarlierVideo(place=str(earlier), output=str(video), sha256="2", options={"seed": 2})}
    assert (earlier.read_text(), video.read_text()) == ("video 2", "video 3")
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
    store.remove_earlier("night", ["s1"])
    assert store.earlier("night", ["s1"]) == {}


def test_no_other_file_is_removed_as_an_earlier_video(store: BatchStore, tmp_path: Path) -> None:
    """A row of the store names the earlier video of its shot, and no other file."""
    (tmp_path / "other.txt").write_text("another's")
    named = EarlierVideo(place=str(tmp_path / "other.txt"), output=str(tmp_path / "s.mp4"), sha256="1", options={})
    spoil(store, "s1", earlier=named.model_dump_json())
    assert store.earlier("night", ["s1"]) == {}
    store.remove_earlier("night", ["s1"])
    assert (tmp_path / "other.txt").exists()


@pytest.fixture
def reviewed(store: BatchStore) -> BatchStore:
    """A batch of six shots, of which four are done, one is rejected, and one is cancelled."""
    for number, shot in enumerate(SHOTS[:4]):
        store.put("night", done(shot.id, r_opening=0.9 - number / 10, look=("blurred",) if number == 2 else ()))
    store.decide("night", decision("s1", ReviewState.APPROVED))
    store.decide("night", decision("s1", ReviewState.REJECTED))
    store.cancel("night", ["s5"])
    return store


def test_lists_agree_with_the_records(reviewed: BatchStore) -> None:
    """Rows, records, progress and decisions are those of the single shots."""
    shots, records = reviewed.shots("night"), reviewed.records("night")
    assert [(one.row, one.shot, one.record) for one in shots] == list(zip(range(6), SHOTS, records, strict=True))
    assert [one.decision for one in shots] == [None, reviewed.decisions("night", "s1")[-1], None, None, None, None]
    assert progress_from(reviewed.work("night")) == progress_of(records)
    assert [one.review for one in reviewed.work("night")].count(ReviewState.REJECTED) == 1
    assert reviewed.states() == {"night": {ShotState.DONE: 4, ShotState.WAITING: 1, ShotState.CANCELLED: 1}}


@pytest.mark.parametrize("at_once", [1, 4, 6, 7])
def test_all_shots_come_in_pieces(reviewed: BatchStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """A reader of all shots gets each shot once, in the order of the rows, and learns that there is no such batch."""
    monkeypatch.setattr(batch_store, "_SHOTS_AT_ONCE", at_once)
    assert list(reviewed.each_shot("night")) == reviewed.shots("night")
    reading = reviewed.each_shot("night")
    next(reading)
    reviewed.remove("night")
    with pytest.raises(BatchNotFoundError):
        list(reading)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (ShotQuery(states=[ShotState.CANCELLED]), ["s5"]),
        (ShotQuery(states=[ShotState.CANCELLED, "look"]), ["s2", "s5"]),
        (ShotQuery(states=[ShotState.DONE], to_look_at=True), ["s2"]),
        (ShotQuery(reviews=[ReviewState.REJECTED]), ["s1"]),
        (ShotQuery(reviews=[ReviewState.UNDECIDED], states=[ShotState.DONE]), ["s0", "s2", "s3"]),
        (ShotQuery(assignee="Ada"), []),
        (ShotQuery(assignee="\0"), []),
        (ShotQuery(behind=(3, 0)), ["s4", "s5"]),
        (ShotQuery(order="name", behind=(3, 0)), ["s4", "s5"]),
    ],
)
def test_lists_choose_shots(reviewed: BatchStore, query: ShotQuery, wanted: list[str]) -> None:
    assert [one.shot.id for one in reviewed.shots("night", query)] == wanted
    assert reviewed.count("night", query) == len(wanted)


def test_riskiest_shots_come_first(reviewed: BatchStore) -> None:
    """Pages in the order of risk have each shot once."""
    risks, behind, ids = [], None, []
    while page := reviewed.shots("night", ShotQuery(order="risk", behind=behind), 2):
        risks += [risk_of(one.record) for one in page]
        ids += [one.shot.id for one in page]
        behind = page[-1].row, round(1e4 * risks[-1])
    assert risks == sorted(risks, reverse=True)
    assert sorted(ids) == [shot.id for shot in SHOTS]


def test_decisions_belong_to_one_video(reviewed: BatchStore) -> None:
    """A shot that was dubbed again is undecided, and its decision counts again with the same video."""
    reviewed.put("night", done("s1", 20))
    assert reviewed.shot_in_list("night", "s1").decision is None
    reviewed.put("night", done("s1", 10))
    assert reviewed.shot_in_list("night", "s1").review is ReviewState.REJECTED
    reviewed.decide("night", decision("s2", ReviewState.ASSIGNED, assignee="Ada"))
    assert [one.shot.id for one in reviewed.shots("night", ShotQuery(assignee="Ada"))] == ["s2"]
    reviewed.reset("night", ["s1"])
    assert reviewed.shots("night", ShotQuery(reviews=[ReviewState.REJECTED])) == []
    assert [one.number for one in reviewed.decisions("night", "s1")] == [1, 2]
