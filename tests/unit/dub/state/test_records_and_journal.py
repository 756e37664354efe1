"""Tests of a job's files on disk: another run goes on from whole files, and makes damaged files anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.state.disk import Allowance
from gateway.dub.state.journal import Journal, journalled, step_key
from gateway.dub.state.records import MOTION_RECORD, Checksum, RecordFile, read_note, write_note
from gateway.dub.state.workspace import CHECKPOINT, Workspace
from services.common.errors import ArtefactCorruptError, InvalidRequestError, StorageFullError
from services.common.store.artefacts import ArtefactStore
from services.common.store.tensor_bytes import NamedArrays


def rows(count: int, start: int = 0) -> np.ndarray:
    made = np.zeros(count, MOTION_RECORD)
    made["speech_probability"] = np.arange(start, start + count)
    return made


def whole(stored: NamedArrays) -> NamedArrays:
    return stored


def finished_job(folder: Path) -> Path:
    """A job whose pass `motion` is finished; returns the record file."""
    with Workspace(folder) as workspace:
        workspace.motion.append(rows(4))
        workspace.motion.sync()
        workspace.finish("motion", {"cuts": [1, 2]}, workspace.motion)
    return folder / "motion.bin"


def test_records_independent_of_pieces(tmp_path: Path) -> None:
    """Records come back by row whatever the pieces were."""
    with RecordFile(tmp_path / "motion.bin", MOTION_RECORD) as file:
        file.append(rows(3))
        file.append(rows(4, start=3))
        assert file.num_rows == 7
        assert file.read(2, 5)["speech_probability"].tolist() == [2, 3, 4]
        assert file.read_rows([6, 0, 1, 2])["speech_probability"].tolist() == [6, 0, 1, 2]
        assert len(file.read(5, 100)) == 2
        assert len(file.read_rows([])) == 0


def test_records_survive_closing_and_can_be_cleared(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "motion.bin", MOTION_RECORD) as file:
        file.append(rows(3))
    with RecordFile(tmp_path / "motion.bin", MOTION_RECORD) as file:
        assert file.num_rows == 3
        file.clear()
        assert file.num_rows == 0
        file.append(rows(1, start=9))
        assert file.read(0, 1)["speech_probability"].tolist() == [9]


def test_first_records_are_kept(tmp_path: Path) -> None:
    """A run that goes on keeps the rows of a checkpoint, and appends the next ones."""
    path, allowance = tmp_path / "motion.bin", Allowance(tmp_path, 1 << 20)
    with RecordFile(path, MOTION_RECORD) as file:
        file.append(rows(3))
        checkpoint = file.checksum()
        file.append(rows(2, start=3))
    with RecordFile(path, MOTION_RECORD, allowance) as file:
        assert file.keep(checkpoint)
        file.append(rows(1, start=7))
        assert file.read(0, 9)["speech_probability"].tolist() == [0, 1, 2, 7]
        assert file.checksum() == file.checksum_on_disk()
        assert allowance.used == path.stat().st_size


@pytest.mark.parametrize("damage", ["changed", "short", "half a row"])
def test_changed_records_are_not_kept(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "motion.bin"
    with RecordFile(path, MOTION_RECORD) as file:
        file.append(rows(3))
        checkpoint = file.checksum()
    data = path.read_bytes()
    if damage == "half a row":
        (tmp_path / "part").write_bytes(data[:-1])
        part = Checksum.of(tmp_path / "part")
        assert part is not None
        checkpoint = part
    else:
        path.write_bytes(data[:-9] if damage == "short" else b"x" + data[1:])
    with RecordFile(path, MOTION_RECORD) as file:
        assert not file.keep(checkpoint)
        assert file.num_rows == 0


def test_shared_records_change_alone(tmp_path: Path) -> None:
    """Records that two jobs share are one file. A job that makes its own anew changes nothing for the other."""
    with RecordFile(tmp_path / "theirs.bin", MOTION_RECORD) as theirs:
        theirs.append(rows(3))
    allowance = Allowance(tmp_path)
    with RecordFile(tmp_path / "mine.bin", MOTION_RECORD, allowance) as mine:
        mine.append(rows(5, start=7))
        mine.take_over(tmp_path / "theirs.bin")
        assert mine.read(0, 9)["speech_probability"].tolist() == [0, 1, 2]
        assert (tmp_path / "mine.bin").samefile(tmp_path / "theirs.bin")
        assert allowance.used == 3 * MOTION_RECORD.itemsize
        assert not mine.keep(Checksum.of(tmp_path / "theirs.bin") or Checksum(0, "")), "a part would be cut off theirs"
        mine.append(rows(1, start=9))
        assert mine.read(0, 9)["speech_probability"].tolist() == [9]
    with RecordFile(tmp_path / "theirs.bin", MOTION_RECORD) as theirs:
        assert theirs.num_rows == 3


def test_failed_link_keeps_records(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "mine.bin", MOTION_RECORD) as mine:
        mine.append(rows(2))
        with pytest.raises(FileNotFoundError):
            mine.take_over(tmp_path / "gone.bin")
        mine.append(rows(1, start=2))
        assert mine.read(0, 9)["speech_probability"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.bin"]


def test_streaming_digest_equals_file(tmp_path: Path) -> None:
    """The digest while writing is that of the file."""
    path = tmp_path / "motion.bin"
    with RecordFile(path, MOTION_RECORD) as file:
        file.append(rows(3))
        file.append(rows(2, start=3))
        assert file.checksum() == file.checksum_on_disk() == Checksum.of(path)
    with RecordFile(path, MOTION_RECORD) as file:
        file.append(rows(1))
        assert file.checksum() == Checksum.of_descriptor(file._file.fileno())
        file.clear()
        file.append(rows(1))
        assert file.checksum() == file.checksum_on_disk()


def test_a_finished_pass_is_known_after_a_restart(tmp_path: Path) -> None:
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("faces", workspace.faces) is None
        assert workspace.redone == []
        workspace.finish("faces", {"shot_cuts": [4]}, workspace.faces)
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("faces", workspace.faces) == {"shot_cuts": [4]}
        assert workspace.redone == []


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "empty", "gone"])
def test_damaged_records_redo_pass(damage: str, tmp_path: Path) -> None:
    """A pass whose records are damaged is done anew."""
    file = finished_job(tmp_path / "job")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        whole_file = file.read_bytes()
        damaged = {"cut": whole_file[:-7], "longer": whole_file + b"\0", "flipped": bytes(content), "empty": b""}
        file.write_bytes(damaged[damage])
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("motion", workspace.motion) is None
        assert [text for text in workspace.redone if "motion.bin" in text]
        assert workspace.finished("motion", workspace.motion) is None
        assert len(workspace.redone) == 1


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"shot_cuts": [4]}',
        b'{"layout": 1, "blake2b": "00", "note": {}}',
        b'{"layout": 2, "blake2b": 3, "note": []}',
    ],
)
def test_invalid_note_is_unfinished(note: bytes, tmp_path: Path) -> None:
    """A note that is none counts as not finished."""
    finished_job(tmp_path / "job")
    (tmp_path / "job" / "motion.done").write_bytes(note)
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("motion", workspace.motion) is None


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    """A flipped bit in what a pass noted is found."""
    finished_job(tmp_path / "job")
    note = tmp_path / "job" / "motion.done"
    text = note.read_text()
    note.write_text(text.replace("[1, 2]", "[1, 3]"))
    assert note.read_text() != text
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("motion", workspace.motion) is None


def test_wrong_types_are_unfinished(tmp_path: Path) -> None:
    """A note with a right digest but wrong types counts as not finished."""
    finished_job(tmp_path / "job")
    wrong: list[dict[str, Any]] = [
        {},
        {"said": 3, "files": {}},
        {"said": {}, "files": {"motion.bin": ["x", 1]}},
        {"said": {}, "files": {}},
    ]
    for content in wrong:
        write_note(tmp_path / "job" / "motion.done", content)
        assert read_note(tmp_path / "job" / "motion.done") == content
        with Workspace(tmp_path / "job") as workspace:
            assert workspace.finished("motion", workspace.motion) is None


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
    finished_job(tmp_path / "job")
    (tmp_path / "job" / "journal").mkdir()
    left = [tmp_path / "job" / name for name in (".background.partial.nut", "background.frames", "journal/.0f.partial")]
    for file in left:
        file.write_bytes(b"half")
    with Workspace(tmp_path / "job") as workspace:
        assert not [file for file in left if file.exists()]
        assert workspace.finished("motion", workspace.motion) == {"cuts": [1, 2]}


def test_only_finished_work_is_worth_keeping(tmp_path: Path) -> None:
    with Workspace(tmp_path / "job") as workspace:
        workspace.describe({"kind": "dub"})
        workspace.faces.append(np.zeros(1, workspace.faces.dtype))
        assert not workspace.resumable()
        (workspace.folder / CHECKPOINT).touch()
        assert workspace.resumable()
        (workspace.folder / CHECKPOINT).unlink()
        workspace.finish("speech", {}, workspace.speech)
        assert workspace.resumable()


def test_a_job_that_is_running_already_is_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path / "job"), pytest.raises(InvalidRequestError, match="running already"):
        Workspace(tmp_path / "job")
    Workspace(tmp_path / "job").close()


def test_oversized_job_ends(tmp_path: Path) -> None:
    """A job that grows beyond what it may take ends."""
    size = MOTION_RECORD.itemsize
    with Workspace(tmp_path / "job", max_bytes=10 * size) as workspace:
        workspace.motion.append(rows(8))
        with pytest.raises(InvalidRequestError, match="DUBSTAGE_MAX_JOB_BYTES"):
            workspace.motion.append(rows(3))
        assert workspace.motion.num_rows == 8
        workspace.motion.clear()
        workspace.motion.append(rows(10))
    with Workspace(tmp_path / "job", max_bytes=10 * size) as workspace, pytest.raises(InvalidRequestError):
        workspace.motion.append(rows(1))


def test_oversized_pass_refused_before_start(tmp_path: Path) -> None:
    """A pass that cannot fit is refused before it begins."""
    allowance = Allowance(tmp_path, max_bytes=1 << 60)
    with pytest.raises(InvalidRequestError, match=r"features.*1[.,].*TB.*DUBSTAGE_MAX_JOB_BYTES"):
        Allowance(tmp_path).check(1_500_000_000_000, "the features of 25,000,000,000 s of speech")
    with pytest.raises(StorageFullError, match="DUBSTAGE_DATA_DIR") as caught:
        allowance.check(1 << 59, "the face records")
    assert str(tmp_path) in caught.value.message


def test_full_disk_ends_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while records are written ends the job."""

    class Usage:
        total, free = 1 << 40, 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    allowance = Allowance(tmp_path)
    allowance.take(1000)
    with pytest.raises(StorageFullError, match="DUBSTAGE_DATA_DIR"):
        allowance.take(100 << 20)


def test_key_ignores_order() -> None:
    """A key depends on every value and not on their order."""
    assert step_key("window", job="a", begin=0) == step_key("window", begin=0, job="a")
    assert step_key("window", job="a", begin=0) != step_key("window", job="a", begin=1)
    assert step_key("window", job="a", begin=0) != step_key("enrol", job="a", begin=0)


def test_step_found_by_other_journal(tmp_path: Path) -> None:
    """A recorded step is found by another journal of the same folder."""
    store = ArtefactStore(tmp_path / "store")
    array = np.arange(6, dtype=np.uint8)
    Journal(tmp_path / "journal", store).record("k1", {"box": array}, {"note": "x"})
    journal = Journal(tmp_path / "journal", store)
    found = journal.find("k1", whole)
    assert found is not None
    np.testing.assert_array_equal(found["box"], array)
    assert found.metadata["note"] == "x"
    assert (journal.reused, journal.computed, journal.redone) == (1, 0, 0)
    assert journal.find("k2", whole) is None
    assert journal.redone == 0


def test_damaged_blob_is_unfinished(tmp_path: Path) -> None:
    """A step whose blob is damaged counts as not finished."""
    store = ArtefactStore(tmp_path / "store")
    journal = Journal(tmp_path / "journal", store)
    journal.record("k1", {"box": np.zeros(8, np.uint8)})
    (ref,) = journal.refs()
    blob = Path(ref.uri.removeprefix("file://"))
    blob.chmod(0o600)
    blob.write_bytes(b"damaged")
    assert journal.find("k1", whole) is None
    assert journal.redone == 1


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "{}",
        "[]",
        "7",
        "not json",
        "[" * 50_000,
        '{"uri": 1, "sha256": "", "size_bytes": 0}',
        '{"uri": "file:///x", "sha256": "x", "size_bytes": 3}',
        '{"uri": "file:///x", "sha256": null, "size_bytes": 3}',
        '{"uri": "file:///x", "sha256": "00", "size_bytes": true}',
        json.dumps({"uri": "file:///x", "sha256": "q" + "0" * 63, "size_bytes": 3}),
        json.dumps({"uri": "file:///x", "sha256": "\ud800", "size_bytes": 3}),
        json.dumps({"uri": "x" * 5000, "sha256": "0" * 64, "size_bytes": 3}),
    ],
)
def test_invalid_entry_is_unfinished(entry: str, tmp_path: Path) -> None:
    """An entry that is none counts as not finished."""
    journal = Journal(tmp_path / "journal", ArtefactStore(tmp_path / "store"))
    (tmp_path / "journal" / "k1").write_text(entry)
    assert journal.find("k1", whole) is None
    assert journal.redone == 1
    # The removal of the job leaves the entry out too.
    assert list(journal.refs()) == []
    journal.record("k1", {"box": np.zeros(8, np.uint8)})
    assert journal.find("k1", whole) is not None
    assert len(list(journalled(tmp_path / "journal"))) == 1


def test_other_store_is_unfinished(tmp_path: Path) -> None:
    """A step in another store counts as not finished."""
    Journal(tmp_path / "journal", ArtefactStore(tmp_path / "old")).record("k1", {"box": np.zeros(8, np.uint8)})
    journal = Journal(tmp_path / "journal", ArtefactStore(tmp_path / "new"))
    assert journal.find("k1", whole) is None
    assert journal.redone == 1


def test_wrong_blob_is_unfinished(tmp_path: Path) -> None:
    """A blob that holds something else counts as not finished."""
    store = ArtefactStore(tmp_path / "store")
    journal = Journal(tmp_path / "journal", store)
    journal.record("k1", {"box": np.zeros(8, np.uint8)})
    text = store.put_bytes(b"no arrays at all")
    (tmp_path / "journal" / "k2").write_text(json.dumps({"uri": text.uri, "sha256": text.sha256, "size_bytes": text.size_bytes}))

    def refuse(problem: Exception) -> Any:
        def decode(_: NamedArrays) -> None:
            raise problem

        return decode

    assert journal.find("k1", refuse(ValueError("another kind"))) is None
    assert journal.find("k1", refuse(ArtefactCorruptError("a blob of it", resource="x"))) is None
    assert journal.find("k2", whole) is None
    assert journal.redone == 3
