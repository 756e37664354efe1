"""Which folder a job works in while another process works in the job's folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.dub.state import workspace
from gateway.dub.state.records import RecordFile
from gateway.dub.state.workspace import CHECKPOINT, LOCK, Workspace, describe_job, is_running, lock_folder, open_workspace
from services.common.errors import InvalidRequestError, StorageFullError

KEY = "0123456789abcdef" * 2
OPERATION = "operations/" + "ab" * 16


def test_busy_folder_uses_second(tmp_path: Path) -> None:
    """An operation works in a second folder while another process works in the first."""
    folder = tmp_path / KEY
    with open_workspace(folder, OPERATION) as alone:
        assert alone.folder == folder
        with open_workspace(folder, OPERATION) as second:
            # The name is that of a job, so that `dubstage jobs list` shows the folder.
            assert second.folder.parent == tmp_path
            assert len(second.folder.name) == len(KEY)
            assert second.folder != folder
        with open_workspace(folder, OPERATION.replace("ab", "cd")) as third:
            assert third.folder not in (folder, second.folder)
    with open_workspace(folder, OPERATION) as again:
        assert again.folder == folder


def test_command_line_job_has_folder(tmp_path: Path) -> None:
    """A job of the command line has one folder."""
    lock_folder(tmp_path / KEY)
    with pytest.raises(InvalidRequestError, match="the very same job is running already"):
        open_workspace(tmp_path / KEY)


def test_lock_query_is_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only asks for the lock is not taken for one that works."""
    os.close(lock_folder(tmp_path / KEY))
    asking = os.open(tmp_path / KEY / LOCK, os.O_RDWR)
    fcntl.flock(asking, fcntl.LOCK_SH)
    assert not is_running(tmp_path / KEY)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        """The machine is busy: the other process goes on after 0.4 s."""
        waits.append(seconds)
        if sum(waits) > 0.4:
            fcntl.flock(asking, fcntl.LOCK_UN)

    monkeypatch.setattr(workspace, "time", SimpleNamespace(sleep=wait))
    os.close(lock_folder(tmp_path / KEY))
    os.close(asking)
    assert sum(waits) > 0.4


def tracked(folder: Path) -> Workspace:
    """A job that has finished the passes over its footage, and a pass over its speech."""
    found = Workspace(folder)
    for name, records in (("faces", found.faces), ("sound", found.sound), ("speech", found.speech)):
        records.append(np.zeros(2, records.dtype))
        records.sync()
        found.finish(name, {"of": folder.name}, records)
    return found


@pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
def test_analysis_is_lent(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes over the footage go to other jobs, those over a speech do not."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    kept = tmp_path / "kept"
    kept.mkdir()
    describe_job(kept, {"kind": "analysis"})
    with tracked(tmp_path / "first") as first, Workspace(tmp_path / "second") as second:
        assert not second.adopt_analysis(kept)
        first.lend_analysis(kept)
        first.lend_analysis(kept)
        assert not [path for path in kept.iterdir() if path.name.startswith(".")]
        assert second.adopt_analysis(kept)
        assert second.finished("faces", second.faces) == second.finished("sound", second.sound) == {"of": "first"}
        assert second.finished("speech", second.speech) is None
        assert (second.faces.num_rows, second.speech.num_rows) == (2, 0)


def test_checkpoint_stays_without_analysis(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with Workspace(tmp_path / "job") as job:
        (job.folder / CHECKPOINT).write_text("{}")
        assert not job.adopt_analysis(tmp_path / "kept")
        assert (job.folder / CHECKPOINT).exists()


def test_own_passes_win_over_kept_ones(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    describe_job(kept, {"kind": "analysis"})
    with tracked(tmp_path / "first") as first, tracked(tmp_path / "second") as second:
        first.lend_analysis(kept)
        assert second.adopt_analysis(kept)
        assert second.finished("faces", second.faces) == {"of": "second"}


def test_vanished_folder_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that vanishes between two looks is made again."""
    make, refused = os.mkdir, [1]

    def removed_meanwhile(path: Path, *given: int) -> None:
        if refused:
            raise FileExistsError(refused.pop(), "File exists", str(path))
        make(path, *given)

    monkeypatch.setattr(os, "mkdir", removed_meanwhile)
    os.close(lock_folder(tmp_path / "job"))
    assert (tmp_path / "job" / LOCK).is_file()


def test_file_instead_of_job_folder(tmp_path: Path) -> None:
    """A file in the place of a job's folder is an error."""
    (tmp_path / "job").write_bytes(b"")
    with pytest.raises(FileExistsError):
        lock_folder(tmp_path / "job")


def test_full_disk_for_record_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for a record file is full and the job can be tried again."""
    opened: list[RecordFile] = []

    def open_until_full(path: Path, *given: Any) -> RecordFile:
        if path.name == "motion.bin":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        opened.append(RecordFile(path, *given))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(workspace, "RecordFile", open_until_full)
        with pytest.raises(StorageFullError, match="no space left for the job's records"):
            open_workspace(tmp_path / KEY)
    assert opened
    assert all(file._file.closed for file in opened)
    open_workspace(tmp_path / KEY).close()
