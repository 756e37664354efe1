"""The process that reads a media file from outside: `python -m gateway.media.inspection_child video 5 2147483648 60`.

The process sets its limits before it loads a library that reads media. The answer goes to standard output.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from gateway.child_process import limit_process


def main(arguments: list[str]) -> None:
    """Answer one question about the file of a descriptor.

    Args:
        arguments: question (video, sound or tags), descriptor, bytes of address space, seconds of processor time.
    """
    question, handle, memory_bytes, seconds = arguments
    limit_process(int(memory_bytes), int(seconds))
    sys.stdout.buffer.write(_answer(question, int(handle)))
    sys.stdout.buffer.flush()


def _answer(question: str, handle: int) -> bytes:
    from pathlib import Path

    import av

    from gateway.media.opening import open_input
    from gateway.media.probe import probe
    from gateway.media.sound import SoundReader
    from gateway.media.wire import pack, pack_media, pack_sound
    from services.common.errors import MediaUnsupportedError

    path = Path(f"/proc/self/fd/{handle}")
    try:
        if question == "video":
            return pack_media(probe(path))
        if question == "sound":
            reader = SoundReader(path)
            reader.check_sound()
            # The claims of a fragmented file show only while its packets are read.
            with open_input(path, field="audio") as container, suppress(av.FFmpegError):
                for _ in container.demux():
                    pass
            return pack_sound(reader.info)
        with open_input(path) as container:
            return pack({"tags": dict(container.metadata)})
    except MediaUnsupportedError as problem:
        if _out_of_memory(problem):
            raise MemoryError from problem
        return pack({"refused": problem.message, "field": problem.field})
    except MemoryError:
        raise
    except Exception as problem:
        # A decoder that a file damages ends the process by a signal. An exception of Python is a fault of our own code.
        return pack({"failed": _fault(problem)})


def _fault(problem: Exception) -> str:
    """Return an exception and the line of code that raised it."""
    import traceback

    frame = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{type(problem).__name__}: {problem} ({frame.filename.rpartition('/')[2]}, line {frame.lineno})"


def _out_of_memory(problem: BaseException | None) -> bool:
    """Return whether an error was caused by FFmpeg's ENOMEM."""
    import errno

    while problem is not None:
        if isinstance(problem, MemoryError) or getattr(problem, "errno", None) == errno.ENOMEM:
            return True
        problem = problem.__cause__
    return False


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MemoryError:
        sys.exit(12)
