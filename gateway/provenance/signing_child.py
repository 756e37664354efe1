"""The process that signs a film: `python -m gateway.provenance.signing_child`. The request comes by standard input, as JSON.

The process sets its limits before it loads the library that reads manifests of strangers. The answer goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64decode, b64encode
from contextlib import ExitStack
from typing import IO, Any, Final

from gateway.child_process import confine

_MEMORY_BYTES: Final = 2 << 30


def main() -> None:
    """Sign one film, and print the manifest or what went wrong."""
    confine(_MEMORY_BYTES)
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from gateway.provenance.credential import Credential
    from gateway.provenance.library import Ingredient, LibraryError, sign

    with ExitStack() as stack:

        def opened(handle: int, mode: str = "rb") -> IO[bytes]:
            file: IO[bytes] = stack.enter_context(os.fdopen(handle, mode))
            file.seek(0)
            return file

        ingredients = [
            Ingredient(each["description"], opened(each["file"]), b64decode(each["sidecar"])) for each in request["ingredients"]
        ]
        credential = Credential(request["chain"].encode(), request["key"].encode(), request["algorithm"])
        target = opened(request["target"], "r+b") if request["target"] is not None else None
        try:
            manifest = sign(
                request["definition"],
                ingredients,
                credential,
                opened(request["source"]),
                target,
                media_type=request["media_type"],
                time_stamp_url=request["time_stamp_url"],
            )
        except LibraryError as problem:
            return {"refused": str(problem), "of_time_stamp": problem.of_time_stamp}
        except OSError as problem:
            return {"errno": problem.errno}
    return {"manifest": b64encode(manifest).decode()}


if __name__ == "__main__":
    main()
