"""The index of a batch: lists are those of the records and decisions, and few files are read for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.batch import index
from gateway.batch.index import BatchIndex, ListedShot
from gateway.batch.records import progress_from, progress_of
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.risk import risk_of
from gateway.batch.store import BatchStore, Entry, Folder
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from services.common.errors import ArtefactCorruptError, BatchNotFoundError
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row

SHOTS = tuple(shot_of_row(id=f"s{row}", footage="/in/a.mp4", output=f"/out/{row}.mp4") for row in range(6))
TIME = "2026-11-26T10:00:00.000Z"


def done(shot_id: str, frames: int = 10) -> ShotRecord:
    return ShotRecord(
        id=shot_id,
        state=ShotState.DONE,
        frames=frames,
        frames_dubbed=5,
        output_sha256=f"{frames:064x}",
        begun_at=TIME,
        ended_at="2026-11-26T10:00:30.000Z",
    )


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BatchStore:
    """A store whose batch has six shots, four of them done, one rejected and one cancelled."""
    url = str(tmp_path / "batches") if request.param == "folder" else f"memory://{tmp_path.name}"
    store = BatchStore(url)
    store.create(manifest_of("night", SHOTS), "gateway")
    for shot in SHOTS[:4]:
        store.put("night", done(shot.id))
    store.decide("night", decision("s1", ReviewState.APPROVED))
    store.decide("night", decision("s1", ReviewState.REJECTED))
    store.cancel("night", ["s5"])
    return store


def decision(shot_id: str, state: ReviewState, frames: int = 10, assignee: str = "") -> Decision:
    return Decision(id=shot_id, state=state, decided_at=TIME, output_sha256=f"{frames:064x}", assignee=assignee)


def again(store: BatchStore) -> list[ListedShot]:
    """Return the list of another process."""
    return BatchIndex(BatchStore(store.database), "night").shots()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the records and decisions that are read."""
    names: list[str] = []
    plain = Folder.read_all

    def noted(self: Folder, paths: Sequence[str]) -> dict[str, bytes]:
        names.extend(path.rpartition("/")[2] for path in paths)
        return plain(self, paths)

    monkeypatch.setattr(Folder, "read_all", noted)
    return names


def test_lists_agree_with_the_records(store: BatchStore) -> None:
    """Ids, states, risks, progress and decisions are those of the whole records."""
    shots, records = again(store), store.records("night")
    assert [(shot.id, shot.facts.state) for shot in shots] == [(record.id, record.state) for record in records]
    assert [shot.facts.risk for shot in shots] == [risk_of(record) for record in records]
    assert progress_from([shot.facts for shot in shots]) == progress_of(records)
    assert [shot.review for shot in shots].count(ReviewState.REJECTED) == 1
    (decided,) = (shot for shot in shots if shot.decision)
    assert store.decisions_in("night", [decided.decision])[decided.decision] == store.decisions("night", "s1")[-1]


def test_other_processes_read_the_index(store: BatchStore, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After one process has listed the batch, another reads the changed files alone, and sees what they say now."""
    monkeypatch.setattr(index, "UNSAVED", 1)
    first = again(store)
    assert sorted(one.partition("~")[0].removesuffix(".json") for one in read) == ["s0", "s1", "s1", "s2", "s3"]
    read.clear()
    assert again(store) == first
    assert read == []
    store.put("night", done("s1", 20))
    store.decide("night", decision("s2", ReviewState.ASSIGNED, assignee="Ada"))
    shots = again(store)
    assert [one.partition("~")[0].removesuffix(".json") for one in read] == ["s1", "s2"]
    assert (shots[1].facts.frames, shots[1].review) == (20, ReviewState.UNDECIDED), "the decision was about another video"
    assert (shots[2].review, shots[2].assignee) == (ReviewState.ASSIGNED, "Ada")


def test_quiet_folder_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is written, a look lists nothing. Every kind of change is seen, also in folders that were made meanwhile."""
    store = open_store(tmp_path)
    store.create(manifest_of("night", SHOTS), "gateway")
    store.put("night", done("s1"))
    listed: list[str] = []
    plain = Folder.entries

    def noted(self: Folder, path: str, ending: str = "") -> list[Entry]:
        listed.append(path)
        return plain(self, path, ending)

    monkeypatch.setattr(Folder, "entries", noted)
    watching = BatchIndex(store, "night")

    def look(number: int) -> list[ListedShot]:
        """Return the list of a folder that was last changed `number` minutes after a time long ago."""
        for folder in (tmp_path / "night").iterdir():
            if folder.is_dir():
                os.utime(folder, (60 * number, 60 * number))
        return watching.shots()

    first = look(1)
    listed.clear()
    assert watching.shots() == first
    assert listed == []
    store.put("night", done("s1", 20))
    assert look(2)[1].facts.frames == 20
    store.decide("night", decision("s1", ReviewState.APPROVED, 20))
    assert look(3)[1].review == ReviewState.APPROVED
    store.cancel("night", ["s5"])
    assert look(4)[5].facts.state == ShotState.CANCELLED
    store.put("night", done("s1", 30))
    assert watching.shots()[1].facts.frames == 30, "folders that were changed just now are listed"
    store.put("night", done("s1", 40))
    assert watching.shots()[1].facts.frames == 40


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "0", "records": {}, "decisions": {}}'])
def test_damaged_index_is_not_used(store: BatchStore, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is right whatever the file of the index holds, and the file is written anew."""
    monkeypatch.setattr(index, "UNSAVED", 1)
    wanted = again(store)
    store.save_index("night", content)
    assert again(store) == wanted
    assert len(store.saved_index("night") or b"") > len(content)


def test_many_looks_write_the_index(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of several looks add up: a process that looks often writes the index for the others."""
    monkeypatch.setattr(index, "UNSAVED", 7)
    watching = BatchIndex(store, "night")
    watching.shots()
    for frames in (20, 30):
        assert store.saved_index("night") is None
        store.put("night", done("s0", frames))
        watching.shots()
    assert store.saved_index("night") is not None


def test_few_changes_write_nothing(store: BatchStore) -> None:
    """The index is written after many new files, not after each."""
    again(store)
    assert store.saved_index("night") is None


def test_removed_batch_has_no_index(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "UNSAVED", 1)
    again(store)
    store.remove("night")
    assert store.saved_index("night") is None
    with pytest.raises(BatchNotFoundError):
        again(store)


def test_damaged_record_is_told(store: BatchStore) -> None:
    store._folder.write("night/shots/s2.json", b"{}")
    with pytest.raises(ArtefactCorruptError, match=r"s2\.json is damaged"):
        again(store)


def test_rows_of_a_page_alone(store: BatchStore) -> None:
    """Single rows of the manifest are those of the whole manifest, also after another process has revised it."""
    reader = BatchStore(store.database)
    assert reader.shots("night", [4, 0]) == [SHOTS[4], SHOTS[0]]
    assert reader.row_of("night", "s3") == 3
    with pytest.raises(BatchNotFoundError, match="no shot 's9'"):
        reader.row_of("night", "s9")
