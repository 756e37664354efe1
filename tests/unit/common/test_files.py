"""Files that are written as a whole, and folders that one process at a time writes to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.errors import InvalidRequest
from services.common.files import create_whole, locked_folder, make_folder, write_whole
from tests.file_limit import files_of_at_most

_HOLDS_AND_FORKS = """
import os, sys
from pathlib import Path
from services.common.files import locked_folder

read, write = os.pipe()
with locked_folder(Path(sys.argv[1]), "in use"):
    if os.fork():
        os.read(read, 1)  # the worker runs
    else:
        os.write(write, b"1")
        sys.stdin.read()
    os._exit(0)
"""


def test_a_second_process_is_kept_out_until_the_first_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with locked_folder(folder, "in use"):
        with pytest.raises(InvalidRequest, match="in use") as caught, locked_folder(folder, "in use"):
            pytest.fail("two processes are in the folder")
        assert caught.value.field == "output"
    with locked_folder(folder, "in use"):
        assert folder.is_dir()


def test_a_forked_worker_that_lives_longer_does_not_keep_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDS_AND_FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        # The worker waits for the end of its input, which comes at the end of this block.
        assert process.wait() == 0
        with locked_folder(tmp_path, "in use"):
            pass


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(InvalidRequest, match="file cannot be written: it is a file, and a folder was expected"):
        make_folder(file)
    with pytest.raises(InvalidRequest, match=r"file/below cannot be written: Not a directory; choose another folder"):
        make_folder(file / "below")


def test_a_file_that_does_not_fit_leaves_the_earlier_file_and_no_part(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "network.onnx", b"earlier")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(2000))
    assert [each.name for each in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_bytes() == b"earlier"


def test_pieces_that_fail_leave_the_earlier_file_and_no_part(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "log", [b"one", b"two"])

    def pieces() -> Iterator[bytes]:
        yield b"three"
        raise InvalidRequest("changed", field="file")

    with pytest.raises(InvalidRequest, match="changed"):
        write_whole(path, pieces())
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("log", b"onetwo")]


@pytest.mark.parametrize(("mode", "found"), [(None, 0o644), (0o600, 0o600), (0o640, 0o640), (0o666, 0o666)])
def test_a_file_has_the_permissions_that_are_asked_for(tmp_path: Path, mode: int | None, found: int) -> None:
    umask = os.umask(0o022)
    try:
        write_whole(tmp_path / "new" / "file", b"content", mode=mode, parents=True)
        create_whole(tmp_path / "created", b"content", mode=mode)
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "file", tmp_path / "created")} == {found}


@pytest.mark.parametrize("links", [True, False])
def test_of_several_writers_one_creates_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path, contents = tmp_path / "key", [bytes([number]) * 32 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda content: create_whole(path, content, mode=0o600), contents))
    assert path.read_bytes() == contents[created.index(True)]
    assert (created.count(True), path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (1, 0o600, [path])
