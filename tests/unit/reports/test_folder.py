"""A report's folder is checked before the work, and the report appears whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.reports.folder import PAGE, check_report_folder, report_folder
from services.common.errors import InvalidRequestError, StorageFullError

PAGE_TEXT = "<html><footer>dubstage</footer></body></html>"


def write(folder: Path, *names: str) -> None:
    with report_folder(folder) as partial:
        for name in names:
            (partial / name).write_text(PAGE_TEXT)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_made_when_whole(tmp_path: Path) -> None:
    """A new folder and those above it are made when the report is whole."""
    folder = tmp_path / "a" / "b"
    check_report_folder(folder)
    assert names(tmp_path) == []
    write(folder, PAGE)
    assert names(folder) == [PAGE]
    assert names(tmp_path / "a") == ["b"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_older_report_replaced_others_kept(tmp_path: Path) -> None:
    """An older report is replaced and what else lies there is kept."""
    write(tmp_path, PAGE, "mouths.jpg")
    (tmp_path / "notes.txt").write_text("mine")
    check_report_folder(tmp_path)
    write(tmp_path, PAGE)
    assert names(tmp_path) == [PAGE, "mouths.jpg", "notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_report_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path, problem: Exception) -> None:
        with report_folder(folder) as partial:
            (partial / PAGE).write_text("half")
            raise problem

    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(ZeroDivisionError):
            fail(folder, ZeroDivisionError())
    with pytest.raises(StorageFullError, match="no space left"):
        fail(tmp_path / "new", OSError(28, "No space left on device"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["file", "file/below", "x" * 300, f"new/{'x' * 300}", "other", "loop", "/proc/x", "/dev/null"])
def test_impossible_report_folder_refused(where: str, tmp_path: Path) -> None:
    """Places where no report can lie are refused before the work."""
    (tmp_path / "file").write_text("a file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequestError, match="the report") as caught:
        check_report_folder(tmp_path / where)
    assert caught.value.field == "report"
    assert sorted(tmp_path.rglob("*")) == before


def test_command_files_outside_report(tmp_path: Path) -> None:
    """Files of the command do not lie in the report."""
    (tmp_path / "link").symlink_to(tmp_path / "report")
    with pytest.raises(InvalidRequestError, match=r"dub\.mp4 lies in this folder"):
        check_report_folder(tmp_path / "link", [tmp_path / "report" / "dub.mp4"])
    check_report_folder(tmp_path / "report", [tmp_path / "dub.mp4"])


@pytest.mark.parametrize("where", ["dub.mp4", "dub.mp4/report", "link/report"])
def test_report_replaces_no_command_file(where: str, tmp_path: Path) -> None:
    """A report does not take the place of a file of the command."""
    (tmp_path / "link").symlink_to("dub.mp4")
    with pytest.raises(InvalidRequestError, match=r"dub\.mp4 is a file of this command"):
        check_report_folder(tmp_path / where, [tmp_path / "dub.mp4"])
    assert names(tmp_path) == ["link"]


def test_old_leftovers_removed(tmp_path: Path) -> None:
    """Leftovers of a killed process go when they are old."""
    for name, age in (("old", 3 * 86400), ("new", 0)):
        left = tmp_path / f".dubstage-report-{name}"
        left.mkdir()
        (left / PAGE).write_text("half")
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    write(tmp_path / "report", PAGE)
    assert names(tmp_path) == [".dubstage-report-new", "report"]


def test_nested_report_files_replaced(tmp_path: Path) -> None:
    """Files in folders of a report are replaced too."""
    for content in ("old", "new"):
        with report_folder(tmp_path / "report") as partial:
            (partial / "pictures").mkdir()
            (partial / "pictures" / f"{content}.txt").write_text(content)
            (partial / "pictures" / "same.txt").write_text(content)
            (partial / "index.html").write_text("<footer>dubstage</footer>")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html", "pictures"]
    found = {path.name: path.read_text() for path in (tmp_path / "report" / "pictures").iterdir()}
    assert found == {"old.txt": "old", "new.txt": "new", "same.txt": "new"}
