"""What a job keeps on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.pipeline.journal import Journal, step_key
from gateway.pipeline.records import MOTION_RECORD, RecordFile
from gateway.pipeline.workspace import Workspace
from services.common.artefacts import ArtefactStore
from services.common.errors import InvalidRequest


def rows(count: int, start: int = 0) -> np.ndarray:
    made = np.zeros(count, MOTION_RECORD)
    made["speech_probability"] = np.arange(start, start + count)
    return made


def test_records_come_back_by_row_whatever_the_pieces_were(tmp_path: Path) -> None:
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


def test_a_finished_pass_is_known_after_a_restart(tmp_path: Path) -> None:
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("faces") is None
        workspace.finish("faces", {"shot_cuts": [4]})
    with Workspace(tmp_path / "job") as workspace:
        assert workspace.finished("faces") == {"shot_cuts": [4]}


def test_a_job_that_is_running_already_is_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path / "job"), pytest.raises(InvalidRequest, match="running already"):
        Workspace(tmp_path / "job")
    Workspace(tmp_path / "job").close()


def test_a_key_depends_on_every_value_and_not_on_their_order() -> None:
    assert step_key("window", job="a", begin=0) == step_key("window", begin=0, job="a")
    assert step_key("window", job="a", begin=0) != step_key("window", job="a", begin=1)
    assert step_key("window", job="a", begin=0) != step_key("enrol", job="a", begin=0)


def test_a_recorded_step_is_found_by_another_journal_of_the_same_folder(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "store")
    array = np.arange(6, dtype=np.uint8)
    Journal(tmp_path / "journal", store).record("k1", {"box": array}, {"note": "x"})
    journal = Journal(tmp_path / "journal", store)
    found = journal.find("k1")
    assert found is not None
    np.testing.assert_array_equal(found["box"], array)
    assert found.metadata["note"] == "x"
    assert (journal.reused, journal.computed) == (1, 0)
    assert journal.find("k2") is None


def test_a_step_whose_blob_is_damaged_counts_as_not_finished(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "store")
    journal = Journal(tmp_path / "journal", store)
    journal.record("k1", {"box": np.zeros(8, np.uint8)})
    (ref,) = journal.refs()
    blob = Path(ref.uri.removeprefix("file://"))
    blob.chmod(0o600)
    blob.write_bytes(b"damaged")
    assert journal.find("k1") is None
