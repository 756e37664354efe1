"""Work of processes, in a module that other processes can import."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.common.errors import StorageFullError


@contextmanager
def worker(factor: int) -> Iterator[Callable[[int], int]]:
    """Yield a function that multiplies; negative numbers end the process, and a hundred fills the disk."""

    def work(number: int) -> int:
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 100:
            raise StorageFullError("no space", subject="disk")
        return factor * number

    yield work
