"""Reads manifests in a separate process, with bounds on memory and time: a few bytes of a manifest can claim gigabytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from subprocess import TimeoutExpired
from typing import Any, Final

from gateway.provenance.aside import MEMORY_BYTES, ask_aside, limit_s
from gateway.provenance.library import LibraryError

_BASE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """The manifests of a film.

    Attributes:
        told: what c2pa says of them, as `gateway.provenance.library.read` returns it; None: the film has none.
        place: `embedded`, `sidecar`, or empty.
    """

    told: dict[str, Any] | None
    place: str


def read_aside(film: int, media_type: str | None, *, sidecar: bytes = b"", anchors: bytes = b"") -> Found:
    """Return what c2pa says of the manifest in a film, or of the one beside the film if there is none inside. Blocks.

    Args:
        film: descriptor of the film.
        media_type: type of the film; None: the manifest in the film is not looked for.
        sidecar: manifest that lies beside the film; empty: there is none.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        LibraryError: the manifest cannot be read, or reading it takes too much memory or time.
    """
    request = {"film": film, "media_type": media_type, "anchors": anchors.decode("ascii", "replace")}
    longest_s = limit_s(_BASE_S, [film])
    try:
        done = ask_aside(
            "gateway.provenance.reading_child", json.dumps(request).encode() + b"\n" + sidecar, [film], limit_s=longest_s
        )
    except TimeoutExpired:
        raise LibraryError(f"reading it takes more than {longest_s:.0f} s") from None
    if done.returncode != 0:
        raise LibraryError(
            f"reading it takes more than {MEMORY_BYTES >> 20} MiB of memory, or crashes c2pa; the process that read it ended with "
            f"status {done.returncode}"
        )
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise LibraryError(answer["refused"])
    return Found(answer["told"], answer["place"])
