"""Looks into media files that come from outside, in a process of its own with bounds on memory and time.

A file of some kilobytes can claim billions of samples, or keep a decoder busy for hours: what it does then ends with that process.
Only a file that was looked into to its end is opened in the gateway's own process.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final, Literal

from gateway.media.bounds import PROBE_BASE_S, PROBE_BYTES_PER_S, PROBE_MEMORY_BYTES
from gateway.media.regular_file import reading
from gateway.media.sound import SoundInfo
from gateway.media.types import MediaInfo
from gateway.media.wire import film_from, sound_from, unpack
from services.common.errors import MediaUnsupported

_Question = Literal["film", "sound", "tags"]
_ROOT: Final = str(Path(__file__).resolve().parents[2])
"""Where this package is imported from."""
_REMEMBERED: Final = 8
_SETTLED_S: Final = 1.0
_OUT_OF_MEMORY: Final = 12
"""Exit status of the child that ran into its bound of memory."""


def inspect_film(path: Path) -> MediaInfo:
    """As `gateway.media.probe.probe`, for files from outside.

    Raises:
        MediaUnsupported: as `probe`, and where the file takes more memory or time than its kind may.
    """
    return film_from(*_Inspection("film", path, "video").answer(), path)


def inspect_sound(path: Path) -> SoundInfo:
    """The first sound track of a file from outside; it has sound in it.

    Raises:
        MediaUnsupported: as `SoundReader` and its `check_sound`, and where the file takes more memory or time than it may.
    """
    return sound_from(_Inspection("sound", path, "audio").answer()[0])


def inspect_tags(path: Path) -> dict[str, str]:
    """The tags of a media file.

    Raises:
        MediaUnsupported: it is none, or takes more memory or time than it may.
    """
    return dict(_Inspection("tags", path, "output").answer()[0]["tags"])


async def inspect_film_aside(path: Path) -> MediaInfo:
    """As `inspect_film`, off the event loop; a cancelled wait ends the process.

    Raises:
        MediaUnsupported: as `inspect_film`.
    """
    inspection = _Inspection("film", path, "video")
    work = asyncio.ensure_future(asyncio.to_thread(inspection.answer))
    try:
        facts, tail = await asyncio.shield(work)
    except asyncio.CancelledError:
        inspection.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise
    return film_from(facts, tail, path)


_answers: Final[OrderedDict[tuple[object, ...], bytes]] = OrderedDict()
"""What was answered about the files that were looked into last: a dub asks at its door, and again when its turn comes."""
_remembering: Final = threading.Lock()


def _content(handle: int) -> tuple[int, ...] | None:
    """What changes whenever a file's content does: the system alone sets the time of a file's last change. None where the last
    change is so young that a further one could have the same time.
    """
    facts = os.fstat(handle)
    if time.time() - facts.st_ctime < _SETTLED_S:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _remember(key: tuple[object, ...], answer: bytes) -> None:
    with _remembering:
        _answers[key] = answer
        if len(_answers) > _REMEMBERED:
            _answers.popitem(last=False)


class _Inspection:
    """One question to one process."""

    def __init__(self, question: _Question, path: Path, field: str) -> None:
        self._question, self._path, self._field = question, path, field
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the process, or keep it from starting."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()

    def answer(self) -> tuple[dict[str, Any], bytes]:
        """The answer's facts and what is behind them.

        Raises:
            MediaUnsupported: the file is refused, or the process did not live to answer.
        """
        with reading(self._path, field=self._field) as handle:
            content = _content(handle)
            key = None if content is None else (self._question, *content)
            known = None if key is None else _answers.get(key)
            if known is not None:
                return unpack(known)
            seconds = PROBE_BASE_S + os.fstat(handle).st_size / PROBE_BYTES_PER_S
            process = self._start(handle, seconds)
            try:
                # Processor time is bounded to the same seconds, in the child: it ends even if this process dies.
                output, _ = process.communicate(timeout=seconds + 1)
            except subprocess.TimeoutExpired:
                raise self._refused(f"looking into it takes more than {math.ceil(seconds)} s") from None
            finally:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            raise self._died(process.returncode, seconds)
        facts, tail = unpack(output)
        if "refused" in facts:
            message = facts["refused"].replace(f"/proc/self/fd/{handle}", str(self._path))
            raise MediaUnsupported(message, field=facts["field"] if self._question == "film" else self._field)
        if key is not None:
            _remember(key, output)
        return facts, tail

    def _start(self, handle: int, seconds: float) -> subprocess.Popen[bytes]:
        limits = [str(PROBE_MEMORY_BYTES), str(math.ceil(seconds))]
        command = [sys.executable, "-P", "-m", "gateway.media.inspection_child", self._question, str(handle), *limits]
        with self._lock:
            if self._cancelled:
                raise self._refused("looking into it was cancelled")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(handle,),
                start_new_session=True,  # Ctrl-C goes to the parent alone, which ends its child
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([_ROOT, *(entry for entry in sys.path if entry)]),
                    # Both reserve address space for threads that are not used here.
                    "OPENBLAS_NUM_THREADS": "1",
                    "MALLOC_ARENA_MAX": "2",
                },
            )
        return self._process

    def _died(self, status: int, seconds: float) -> MediaUnsupported:
        if status == _OUT_OF_MEMORY:
            return self._refused(f"looking into it takes more than {PROBE_MEMORY_BYTES >> 20} MiB of memory")
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return self._refused(f"looking into it takes more than {math.ceil(seconds)} s, or more memory than there is")
        return self._refused("the library that decodes it breaks down")

    def _refused(self, problem: str) -> MediaUnsupported:
        return MediaUnsupported(
            f"{self._path} is damaged, or made to do harm: {problem}; copy the file again, or write it anew "
            "(ffmpeg -i IN -c copy OUT)",
            field=self._field,
        )
