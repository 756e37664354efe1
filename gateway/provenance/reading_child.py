"""The process that reads the manifest of a film: `python -m gateway.provenance.reading_child SECONDS`.

One line of JSON comes by standard input, and then the content of the sidecar. The answer goes to standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Final

from gateway.provenance.aside import begin

_LARGEST_ANSWER: Final = 8 << 20
"""Most characters that the parent, which has no bound on its memory, is given of what c2pa says. Films of films say 0.1 MB."""


def main() -> None:
    """Read one manifest, and print what c2pa says of it."""
    begin()
    request = json.loads(sys.stdin.buffer.readline())
    with os.fdopen(request["film"], "rb") as film:
        sys.stdout.write(_answer(film, request["media_type"], sys.stdin.buffer.read(), request["anchors"]))


def _answer(film: IO[bytes], media_type: str | None, sidecar: bytes, anchors: str) -> str:
    from gateway.provenance.library import UNKNOWN, LibraryError, read_json

    try:
        told = read_json(film, media_type, anchors=anchors) if media_type is not None else None
        place = "embedded" if told else ""
        if told is None and sidecar:
            told, place = read_json(film, UNKNOWN, sidecar=sidecar, anchors=anchors), "sidecar"
    except LibraryError as problem:
        return json.dumps({"refused": str(problem)})
    if told is not None and len(told) > _LARGEST_ANSWER:
        return json.dumps({"refused": f"it says more than {_LARGEST_ANSWER >> 20} MB"})
    return f'{{"place": "{place}", "told": {told or "null"}}}'


if __name__ == "__main__":
    main()
