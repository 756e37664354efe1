"""Signs manifests in a separate process, with bounds on memory and time.

c2pa reads manifests that strangers wrote, and what a time stamp authority answers. With a process of its own, what these do ends
with the process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gateway.child_process import child_environment
from gateway.provenance.library import Ingredient, LibraryError
from gateway.provenance.signer_command import SignerError, running
from gateway.provenance.signing_child import ASKING, LARGEST_ANSWER
from gateway.provenance.signing_key import Credential

TIME_STAMP_SETTING: Final = "DUBSTAGE_PROVENANCE_TIME_STAMP_URL"
_BASE_S: Final = 300.0
_BYTES_PER_S: Final = 2_000_000
"""Slowest rate at which the sources of a film are read before the process is ended."""


def sign_aside(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    credential: Credential,
    *,
    folder: Path,
    time_stamp_url: str = "",
    time_stamp_limit_s: float = 30.0,
) -> bytes:
    """Return what `gateway.provenance.library.sign` returns. All files must be files of the system. Blocks.

    Args:
        definition, ingredients, credential, time_stamp_url: as in `sign`.
        folder: folder for temporary files, which have no names.
        time_stamp_limit_s: longest wait for the whole answer of the time stamp authority, seconds.

    Raises:
        LibraryError: as `sign`, or the process ended without an answer, or took too long.
        SignerError: as `sign`, or the command of the credential cannot be started.
        OSError: temporary files cannot be written.
    """
    request = {
        "definition": definition,
        "ingredients": [
            {"description": each.description, "file": each.file.fileno(), "sidecar": b64encode(each.sidecar).decode()}
            for each in ingredients
        ],
        "signer": None,
        "chain": credential.chain.decode("ascii"),
        "key": credential.key.decode("ascii"),
        "algorithm": credential.algorithm,
        "time_stamp_url": time_stamp_url,
        "time_stamp_limit_s": time_stamp_limit_s,
    }
    files = [each.file.fileno() for each in ingredients]
    limit_s = _BASE_S + time_stamp_limit_s + sum(os.fstat(file).st_size for file in files) / _BYTES_PER_S
    try:
        # Started here: the command has the gateway's environment and none of the limits of the process that signs.
        with running(credential.command) as connection:
            if connection is not None:
                request["signer"] = connection.fileno()
                files.append(connection.fileno())
            done = subprocess.run(
                [sys.executable, "-S", "-P", "-m", "gateway.provenance.signing_child"],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=files,
                start_new_session=True,  # Ctrl-C goes to the parent alone, which waits for the short rest
                env=child_environment(TMPDIR=str(folder.absolute())),
                timeout=limit_s,
                check=False,
            )
            return _manifest(done, time_stamp_limit_s)
    except subprocess.TimeoutExpired:
        raise LibraryError(f"it took more than {limit_s:.0f} s") from None


def _manifest(done: subprocess.CompletedProcess[bytes], time_stamp_limit_s: float) -> bytes:
    """Return the manifest of an answer, or raise what the answer says."""
    asked = done.stdout.startswith(ASKING)
    try:
        answer = json.loads(done.stdout.removeprefix(ASKING))
    except ValueError:
        if asked:
            raise LibraryError(_unanswered(done.returncode, time_stamp_limit_s), of_time_stamp=True) from None
        raise LibraryError(f"the process that signs ended with status {done.returncode}") from None
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "refused" in answer:
        raise LibraryError(answer["refused"], of_time_stamp=answer["of_time_stamp"])
    if "no_signature" in answer:
        raise SignerError(answer["no_signature"])
    return b64decode(answer["manifest"])


def _unanswered(status: int, time_stamp_limit_s: float) -> str:
    """Return why a process that asked a time stamp authority ended without an answer, in words."""
    if status == -signal.SIGALRM:
        return f"its answer was not complete after {time_stamp_limit_s:g} s"
    return f"its answer does not fit into {LARGEST_ANSWER >> 20} MB; the process that read the answer ended with status {status}"
