"""Locks of folders: other processes are kept out, and forked workers keep no lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from research.training.folder_lock import locked_folder, make_folder
from services.common.errors import InvalidRequestError

_HOLDS_AND_FORKS = """
import os, sys
from pathlib import Path
from research.training.folder_lock import locked_folder

read, write = os.pipe()
with locked_folder(Path(sys.argv[1]), "in use"):
    if os.fork():
        os.read(read, 1)  # the worker runs
    else:
        os.write(write, b"1")
        sys.stdin.read()
    os._exit(0)
"""


def test_second_process_waits_for_lock(tmp_path: Path) -> None:
    """A second process is kept out until the first is done."""
    folder = tmp_path / "new" / "folder"
    with locked_folder(folder, "in use"):
        with pytest.raises(InvalidRequestError, match="in use") as caught, locked_folder(folder, "in use"):
            pytest.fail("two processes are in the folder")
        assert caught.value.field == "output"
    with locked_folder(folder, "in use"):
        assert folder.is_dir()


def test_forked_worker_keeps_no_lock(tmp_path: Path) -> None:
    """A forked worker that lives longer does not keep the lock."""
    command = [sys.executable, "-c", _HOLDS_AND_FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        # The worker waits for the end of its input, which comes at the end of this block.
        assert process.wait() == 0
        with locked_folder(tmp_path, "in use"):
            pass


def test_file_in_place_of_folder(tmp_path: Path) -> None:
    """A file in place of the folder is named."""
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(InvalidRequestError, match="file cannot be written: it is a file"):
        make_folder(file)
    with pytest.raises(InvalidRequestError, match=r"file/below cannot be written: Not a directory"):
        make_folder(file / "below")
