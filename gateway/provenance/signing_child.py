"""The process that signs a manifest: `python -m gateway.provenance.signing_child SECONDS`.

The request comes by standard input, as JSON. The answer goes to standard output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from base64 import b64decode, b64encode
from contextlib import ExitStack
from typing import IO, Any, Final

from gateway.provenance.aside import MEMORY_BYTES, begin

ASKING: Final = b"asking\n"
"""What the process says before it asks the time stamp authority. After that, only the authority can end the process."""
ANSWERED: Final = b"answered\n"
"""What the process says when the manifest is signed."""
LARGEST_ANSWER: Final = 256 << 20
"""Memory that the process may take for the answer of a time stamp authority, bytes."""


def main() -> None:
    """Sign one manifest, and print the manifest or what went wrong."""
    begin()
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from gateway.provenance.library import Ingredient, LibraryError, check_kept, sign
    from gateway.provenance.signer_command import SignerError
    from gateway.provenance.signing_key import Credential

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


if __name__ == "__main__":
    main()
