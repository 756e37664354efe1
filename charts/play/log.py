"""Lines about a run, for the reader and for a file."""

from __future__ import annotations

import threading
import time
from pathlib import Path


class Log:
    """Prints lines with the seconds since the beginning, and writes them to a file. Threads may share it.

    Args:
        file: takes the lines; an older file is replaced.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._begin = time.monotonic()
        self._turn = threading.Lock()

    def __call__(self, text: str) -> None:
        """Write one line."""
        line = f"{time.monotonic() - self._begin:6.1f} s  {text}"
        with self._turn:
            print(line, flush=True)
            print(line, file=self._file, flush=True)
