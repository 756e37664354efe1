"""Folders that one process at a time writes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.common.errors import InvalidRequest
from services.common.store.files import locked_folder, make_folder

_HOLDS_AND_FORKS = """
import os, sys
from pathlib import Path
from services.common.store.files import locked_folder

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
