"""Folders for copies of media that come from a URL, or go to one. What a killed process leaves is removed by the next."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.dub.state.workspace import is_running, lock_folder
from services.common.errors import InvalidRequestError

SCRATCH: Final = "fetched"
"""Folder of the data folder for copies of media."""


class ScratchFolders:
    """Folders for copies, below a folder that this process holds until `close`."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / SCRATCH
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._own: Path | None = None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make an empty folder, and remove the folder at the end. Blocks."""
        with self._lock:
            if self._own is None:
                self._own = _own_folder(self._root, self._stack)
        folder = Path(tempfile.mkdtemp(dir=self._own))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove all folders of this process. Blocks."""
        with self._lock:
            self._own = None
            self._stack.close()


def _own_folder(root: Path, stack: ExitStack) -> Path:
    """Make a locked folder below `root`, and remove the folders that dead processes left. The stack removes the folder."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_left(root)
    folder = root / f"{os.getpid()}-{os.urandom(4).hex()}"
    handle = lock_folder(folder)
    stack.callback(os.close, handle)
    stack.callback(shutil.rmtree, folder, True)
    return folder


def remove_left_copies(data_dir: Path) -> None:
    """Remove the copies of media that killed processes left below a data folder. Blocks."""
    root = data_dir / SCRATCH
    if root.is_dir():
        _remove_left(root)


def _remove_left(root: Path) -> None:
    for left in root.iterdir():
        if left.is_symlink() or is_running(left):
            continue
        # The removal holds the lock: another process may have made the folder just now, and be about to lock it.
        with suppress(InvalidRequestError, OSError):
            handle = lock_folder(left, make=False)
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)
