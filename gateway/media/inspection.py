"""Reads media files from outside in a separate process with bounds on memory and time.

A file of some kilobytes can claim billions of samples, or keep a decoder busy for hours. The harm ends with the separate process.
Only a file that this process read to the end is opened in the gateway's own process.
"""

from __future__ import annotations

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

from gateway.async_utilities import in_stoppable_thread
from gateway.child_process import bare_environment
from gateway.media.opening import PROBE_BASE_S, PROBE_BYTES_PER_S, PROBE_MEMORY_BYTES
from gateway.media.sound import SoundInfo
from gateway.media.types import MediaInfo
from gateway.media.wire import media_from, sound_from, unpack
from gateway.safe_paths import open_media_file
from services.common.errors import ContractBrokenError, MediaUnsupportedError

_Question = Literal["video", "sound", "tags"]
_REMEMBERED: Final = 256
"""Most answers: a scene asks about a sound file for each of its lines (MOST_LINES), in each of several checks."""
_REMEMBERED_BYTES: Final = 32 << 20
"""Most bytes of all answers. The frame times of a video of two hours take up to 4 MiB."""
_SETTLED_S: Final = 1.0
_OUT_OF_MEMORY: Final = 12
"""Exit status of a child that reached its bound of memory."""
_answers: Final[OrderedDict[tuple[object, ...], bytes]] = OrderedDict()
"""Answers about the last files: a dub asks when it is submitted, and again when its turn comes."""
_remembering: Final = threading.Lock()


def inspect_video(path: Path) -> MediaInfo:
    """Return the description of a video from outside, as `gateway.media.probe.probe` does.

    Raises:
        MediaUnsupportedError: as `probe`, or the file takes more memory or time than is allowed.
    """
    return media_from(*_Inspection("video", path, "video").answer(), path)


def inspect_sound(path: Path) -> SoundInfo:
    """Return the description of the first sound track of a file from outside. The track has at least one sample.

    Raises:
        MediaUnsupportedError: as `SoundReader` and `SoundReader.check_sound`, or the file takes more memory or time than is
            allowed.
    """
    return sound_from(_Inspection("sound", path, "audio").answer()[0])


def inspect_tags(path: Path) -> dict[str, str]:
    """Return the tags of a media file from outside.

    Raises:
        MediaUnsupportedError: the file is no media file, or takes more memory or time than is allowed.
    """
    return dict(_Inspection("tags", path, "output").answer()[0]["tags"])


async def inspect_in_child(path: Path) -> MediaInfo:
    """Return what `inspect_video` returns, without blocking the event loop. A cancelled wait ends the process.

    Raises:
        MediaUnsupportedError: as `inspect_video`.
    """
    inspection = _Inspection("video", path, "video")
    return media_from(*await in_stoppable_thread(inspection.answer, inspection.cancel), path)


def _content(handle: int) -> tuple[int, ...] | None:
    """Return numbers that change whenever a file's content changes: only the system sets the time of the last change.

    None is returned if the last change is so recent that a further change could have the same time.
    """
    facts = os.fstat(handle)
    if time.time() - facts.st_ctime < _SETTLED_S:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _remember(key: tuple[object, ...], answer: bytes) -> None:
    with _remembering:
        _answers[key] = answer
        while len(_answers) > _REMEMBERED or sum(map(len, _answers.values())) > _REMEMBERED_BYTES:
            _answers.popitem(last=False)


def _recall(key: tuple[object, ...]) -> bytes | None:
    with _remembering:
        if key in _answers:
            _answers.move_to_end(key)
        return _answers.get(key)


class _Inspection:
    """One question to one process.

    Args:
        question: what is asked.
        field: option or field that names the file, for errors.
    """

    def __init__(self, question: _Question, path: Path, field: str) -> None:
        self._question, self._path, self._field = question, path, field
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the process, or prevent its start."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()

    def answer(self) -> tuple[dict[str, Any], memoryview]:
        """Return the facts of the answer and the bytes behind the facts.

        Raises:
            MediaUnsupportedError: the file is refused, or the process ended without an answer.
            ContractBrokenError: our own code in the process failed.
        """
        with open_media_file(self._path, field=self._field) as handle:
            content = _content(handle)
            key = None if content is None else (self._question, *content)
            stored = None if key is None else _recall(key)
            if stored is not None:
                return unpack(stored)
            seconds = PROBE_BASE_S + os.fstat(handle).st_size / PROBE_BYTES_PER_S
            process = self._start(handle, seconds)
            try:
                # The child limits its own processor time to the same seconds, so that it ends even if this process dies.
                output, _ = process.communicate(timeout=seconds + 1)
            except subprocess.TimeoutExpired:
                raise self._refused(f"reading it takes more than {math.ceil(seconds)} s") from None
            finally:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            raise self._died(process.returncode, seconds)
        facts, tail = unpack(output)
        if "failed" in facts:
            raise ContractBrokenError(f"{self._path} cannot be inspected, because this program has a fault: {facts['failed']}")
        if "refused" in facts:
            message = facts["refused"].replace(f"/proc/self/fd/{handle}", str(self._path))
            raise MediaUnsupportedError(message, field=facts["field"] if self._question == "video" else self._field)
        if key is not None:
            _remember(key, output)
        return facts, tail

    def _start(self, handle: int, seconds: float) -> subprocess.Popen[bytes]:
        limits = [str(PROBE_MEMORY_BYTES), str(math.ceil(seconds))]
        command = [sys.executable, "-P", "-m", "gateway.media.inspection_child", self._question, str(handle), *limits]
        with self._lock:
            if self._cancelled:
                raise self._refused("reading it was cancelled")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(handle,),
                start_new_session=True,  # Ctrl-C goes to the parent alone, and the parent ends the child
                # Without these, address space is reserved for threads that are not used here.
                env=bare_environment(OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="2"),
            )
        return self._process

    def _died(self, status: int, seconds: float) -> MediaUnsupportedError:
        if status == _OUT_OF_MEMORY:
            return self._refused(f"reading it takes more than {PROBE_MEMORY_BYTES >> 20} MiB of memory")
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return self._refused(f"reading it takes more than {math.ceil(seconds)} s, or more memory than there is")
        return self._refused("the decoder crashes")

    def _refused(self, problem: str) -> MediaUnsupportedError:
        return MediaUnsupportedError(
            f"{self._path} is damaged or malicious: {problem}; copy the file again, or convert it (ffmpeg -i IN -c copy OUT)",
            field=self._field,
        )
