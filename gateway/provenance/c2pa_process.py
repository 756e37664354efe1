"""The processes that call c2pa: `python -m gateway.provenance.c2pa_process sign|read SECONDS`. Memory and time are bounded.

c2pa reads manifests that strangers wrote. With a process of its own, the harm that a manifest does ends with that process.
This module loads no library that reads files: a process sets its limits before.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Collection
from contextlib import ExitStack
from typing import IO, Any, Final, Literal

from gateway.child_process import bare_environment, limit_process

MEMORY_BYTES: Final = 2 << 30
"""Address space of a process that calls c2pa, bytes. c2pa needs 0.6 GB of it for a video of any length."""
_BYTES_PER_S: Final = 2_000_000
"""Slowest rate at which files are read before the process is ended."""
ASKING: Final = b"asking\n"
"""Words of the process that signs before it asks the time stamp authority. After that, only the authority can end the process."""
ANSWERED: Final = b"answered\n"
"""Words of the process that signs when the manifest is signed."""
LARGEST_ANSWER: Final = 256 << 20
"""Memory that the process may take for the answer of a time stamp authority, bytes."""
_MOST_CHARACTERS: Final = 8 << 20
"""Most characters that the parent, which has no bound on its memory, is given of what c2pa says. Videos of videos say 0.1 MB."""


def limit_s(base_s: float, handles: Collection[int]) -> float:
    """Return the longest time of a process that reads some files, seconds.

    Args:
        base_s: seconds for everything besides the content of the files.
        handles: descriptors of the files.
    """
    return base_s + sum(os.fstat(handle).st_size for handle in handles) / _BYTES_PER_S


def run_c2pa(
    task: Literal["sign", "read"], request: bytes, handles: Collection[int], *, limit_s: float, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Start this module as a process, and return how the process ended and what it printed. Blocks.

    Args:
        task: `sign` signs one manifest, and `read` reads one. Both answer with JSON.
        request: standard input of the process. `sign` takes JSON; `read` takes a line of JSON, then the sidecar.
        handles: descriptors that the process inherits.
        limit_s: longest time of the process, seconds.
        environment: further variables.

    Raises:
        subprocess.TimeoutExpired: the process took longer. It was ended.
    """
    return subprocess.run(
        [sys.executable, "-S", "-P", "-m", "gateway.provenance.c2pa_process", task, str(math.ceil(limit_s))],
        input=request,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(handles),
        start_new_session=True,  # Ctrl-C goes to the parent alone, which waits for the short rest
        env=bare_environment(**environment),
        timeout=limit_s,
        check=False,
    )


def main() -> None:
    """Set the limits of this process, sign or read one manifest, and print the result as JSON."""
    # The bound on processor time ends this process where the parent, which bounds the time on the clock, has died.
    limit_process(MEMORY_BYTES, int(sys.argv[2]))
    # c2pa looks up its own version among all installed packages, half of this process's time, and works without the answer.
    sys.modules["importlib.metadata"] = None  # type: ignore[assignment]
    if sys.argv[1] == "sign":
        json.dump(_sign(json.load(sys.stdin)), sys.stdout)
        return
    request = json.loads(sys.stdin.buffer.readline())
    with os.fdopen(request["video"], "rb") as video:
        sys.stdout.write(_read(video, request["media_type"], sys.stdin.buffer.read(), request["anchors"]))


def _sign(request: dict[str, Any]) -> dict[str, Any]:
    from gateway.provenance.library import Ingredient, LibraryError, check_kept, sign
    from gateway.provenance.signer import Credential, SignerError

    def bound_the_authority() -> None:
        """Say that only the authority is left, and limit what waiting for its answer may take."""
        _say(ASKING)
        with open("/proc/self/statm") as file:
            in_use = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (min(in_use + LARGEST_ANSWER, MEMORY_BYTES), MEMORY_BYTES))
        signal.setitimer(signal.ITIMER_REAL, request["time_stamp_limit_s"])  # ends the process, wherever c2pa waits

    def unbind() -> None:
        """Say that the authority has answered, and take the limits of its answer back."""
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        _say(ANSWERED)

    with ExitStack() as stack:

        def opened(handle: int) -> IO[bytes]:
            file: IO[bytes] = stack.enter_context(os.fdopen(handle, "rb"))
            file.seek(0)
            return file

        ingredients = [
            Ingredient(each["description"], opened(each["file"]), b64decode(each["sidecar"])) for each in request["ingredients"]
        ]
        credential = Credential(request["chain"].encode(), request["key"].encode(), request["algorithm"])
        url = request["time_stamp_url"]
        connection = stack.enter_context(socket.socket(fileno=request["signer"])) if request["signer"] is not None else None
        try:
            manifest = sign(
                request["definition"],
                ingredients,
                credential,
                time_stamp_url=url,
                before_authority=bound_the_authority if url else lambda: None,
                connection=connection,
            )
            unbind()
            check_kept(manifest)
        except LibraryError as problem:
            return {"refused": str(problem), "of_time_stamp": problem.of_time_stamp}
        except SignerError as problem:
            return {"no_signature": str(problem)}
        except OSError as problem:
            return {"errno": problem.errno}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    return {"manifest": b64encode(manifest).decode()}


def _say(word: bytes) -> None:
    sys.stdout.buffer.write(word)
    sys.stdout.buffer.flush()


def _read(video: IO[bytes], media_type: str | None, sidecar: bytes, anchors: str) -> str:
    from gateway.provenance.library import UNKNOWN, LibraryError, read_json

    try:
        report = read_json(video, media_type, anchors=anchors) if media_type is not None else None
        place = "embedded" if report else ""
        if report is None and sidecar:
            report, place = read_json(video, UNKNOWN, sidecar=sidecar, anchors=anchors), "sidecar"
    except LibraryError as problem:
        return json.dumps({"refused": str(problem)})
    if report is not None and len(report) > _MOST_CHARACTERS:
        return json.dumps({"refused": f"it says more than {_MOST_CHARACTERS >> 20} MB"})
    return f'{{"place": "{place}", "report": {report or "null"}}}'


if __name__ == "__main__":
    main()
