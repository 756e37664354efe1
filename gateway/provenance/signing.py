"""Signs films in a separate process, with bounds on memory and time, and temporary files beside the film.

c2pa copies a film twice to temporary files, and reads manifests that strangers wrote. With a process of its own, the copies lie on
the disk of the film, and what a stranger's manifest does ends with the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from gateway.child_process import child_environment
from gateway.provenance.credential import Credential
from gateway.provenance.library import Ingredient, LibraryError

_BASE_S: Final = 300.0
_BYTES_PER_S: Final = 2_000_000
"""Slowest rate at which a film is signed before its process is ended."""


def sign_aside(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    credential: Credential,
    source: IO[bytes],
    target: IO[bytes] | None,
    *,
    media_type: str,
    folder: Path,
    time_stamp_url: str = "",
) -> bytes:
    """Return what `gateway.provenance.library.sign` returns. All files must be files of the system. Blocks.

    Args:
        definition, ingredients, credential, source, target, media_type, time_stamp_url: as in `sign`.
        folder: folder for temporary files, which have no names.

    Raises:
        LibraryError: as `sign`, or the process ended without an answer, or took too long.
        OSError: as `sign`, or the temporary files cannot be written.
    """
    request = {
        "definition": definition,
        "ingredients": [
            {"description": each.description, "file": each.file.fileno(), "sidecar": b64encode(each.sidecar).decode()}
            for each in ingredients
        ],
        "chain": credential.chain.decode("ascii"),
        "key": credential.key.decode("ascii"),
        "algorithm": credential.algorithm,
        "source": source.fileno(),
        "target": target.fileno() if target is not None else None,
        "media_type": media_type,
        "time_stamp_url": time_stamp_url,
    }
    files = [source, *(each.file for each in ingredients)]
    limit_s = _BASE_S + sum(os.fstat(file.fileno()).st_size for file in files) / _BYTES_PER_S
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway.provenance.signing_child"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[file.fileno() for file in (*files, *([target] if target is not None else []))],
            start_new_session=True,  # Ctrl-C goes to the parent alone, which waits for the short rest
            env=child_environment(TMPDIR=str(folder.absolute())),
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LibraryError(f"it took more than {limit_s:.0f} s", of_time_stamp=bool(time_stamp_url)) from None
    return _manifest(done)


def _manifest(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """Return the manifest of an answer, or raise what the answer says."""
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise LibraryError(f"the process that signs ended with status {done.returncode}") from None
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "refused" in answer:
        raise LibraryError(answer["refused"], of_time_stamp=answer["of_time_stamp"])
    return b64decode(answer["manifest"])
