"""The process that looks into a media file from outside: `python -m gateway.media.inspection_child film 5 2147483648 60`.

Its limits are set before any library that reads media is loaded. Its answer goes to standard output.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress


def main(arguments: list[str]) -> None:
    """Answer one question about the file behind a descriptor.

    Args:
        arguments: film, sound or tags; the descriptor; bytes of address space; seconds of processor time.
    """
    question, handle, memory_bytes, seconds = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where a container's memory ends, this process goes before the gateway
    sys.stdout.buffer.write(_answer(question, int(handle)))
    sys.stdout.buffer.flush()


def _answer(question: str, handle: int) -> bytes:
    from pathlib import Path

    import av

    from gateway.media.opening import open_input
    from gateway.media.probe import probe
    from gateway.media.sound import SoundReader
    from gateway.media.wire import pack, pack_film, pack_sound
    from services.common.errors import MediaUnsupported

    path = Path(f"/proc/self/fd/{handle}")
    try:
        if question == "film":
            return pack_film(probe(path))
        if question == "sound":
            reader = SoundReader(path)
            reader.check_sound()
            # A fragmented file tells what it claims only while it is read.
            with open_input(path, field="audio") as container, suppress(av.FFmpegError):
                for _ in container.demux():
                    pass
            return pack_sound(reader.info)
        with open_input(path) as container:
            return pack({"tags": dict(container.metadata)})
    except MediaUnsupported as problem:
        if _out_of_memory(problem):
            raise MemoryError from problem
        return pack({"refused": problem.message, "field": problem.field})


def _out_of_memory(problem: BaseException | None) -> bool:
    """Whether FFmpeg's ENOMEM lies at the bottom of an error."""
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
