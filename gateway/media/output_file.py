"""A file that appears whole or not at all: it grows under a temporary name beside its own and is renamed when it is complete."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import av

from gateway.media.opening import reason_of
from services.common.errors import DubstageError, InvalidRequest, MediaUnsupported, StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_place(output: Path, source: Path) -> None:
    """Refuses places where `output` cannot be written, before any work is done.

    Raises:
        InvalidRequest: its folder is missing or may not be written, it is a folder, or it is the footage `source` itself.
    """
    folder = output.parent
    if not folder.is_dir():
        raise InvalidRequest(f"{output}: the folder {folder} does not exist; create it first", field="output")
    if output.is_dir():
        raise InvalidRequest(f"{output} is a folder; give the name of a film file", field="output")
    if output.exists() and source.exists() and output.samefile(source):
        raise InvalidRequest(f"{output} is the footage itself; give another name to the output", field="output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidRequest(f"{output}: the folder {folder} may not be written; choose another", field="output")


class OutputFile:
    """The temporary file of one output: created and locked, then either renamed or removed."""

    def __init__(self, output: Path) -> None:
        """Creates and locks the temporary file. What a killed job left there is taken over; what a living one writes is refused.

        Raises:
            InvalidRequest: another job is writing this output.
            OSError: the file cannot be created.
        """
        self.path = output.with_name(f".{output.stem}.partial{output.suffix}")
        self._output = output
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InvalidRequest(f"{output} is being written by another job; wait for it", field="output") from None
        except OSError:
            pass  # a file system without locks
        self._handle: int | None = handle

    def commit(self) -> None:
        """Gives the file its name, after all of it has reached the disk."""
        assert self._handle is not None
        os.fsync(self._handle)
        os.replace(self.path, self._output)
        os.close(self._handle)
        self._handle = None

    def discard(self) -> None:
        """Removes the file; nothing if it was committed or discarded before."""
        if self._handle is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None


def output_error(problem: BaseException, output: Path, codec: str) -> DubstageError | None:
    """The error to report for what went wrong while `output` was written; None where `problem` says it best itself."""
    if isinstance(problem, DubstageError) or not isinstance(problem, (av.FFmpegError, OSError)):
        return None
    number = getattr(problem, "errno", None)
    if number in _FULL:
        return StorageFull(f"no space left to write {output}; free some, or choose another folder", subject=str(output.parent))
    if isinstance(problem, OSError):
        return InvalidRequest(f"{output} cannot be written: {reason_of(problem)}", field="output")
    return MediaUnsupported(
        f"{output}: {codec} in {output.suffix} cannot hold this film ({reason_of(problem)}); try --codec ffv1 to an .mp4",
        field="codec",
    )
