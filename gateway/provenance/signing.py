"""Signs manifests in a separate process, with bounds on memory and time, and turns what goes wrong into errors for the user.

c2pa reads manifests that strangers wrote, and what a time stamp authority answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.provenance.c2pa_process import ANSWERED, ASKING, LARGEST_ANSWER, limit_s, run_c2pa
from gateway.provenance.library import Ingredient, LibraryError
from gateway.provenance.signer import SIGNER_SETTING, Credential, SignerError, signer_process
from services.common.errors import BackendUnavailable, InvalidRequest

TIME_STAMP_SETTING: Final = "DUBSTAGE_PROVENANCE_TIME_STAMP_URL"
_BASE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A signed manifest.

    Attributes:
        left_out: why the manifests of the ingredients are not in it, in c2pa's words; empty: they are in it.
    """

    manifest: bytes
    left_out: str = ""


def sign_manifest(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    credential: Credential,
    *,
    folder: Path,
    time_stamp_url: str = "",
    time_stamp_limit_s: float = 30.0,
) -> SignedManifest:
    """Return what `gateway.provenance.library.sign` returns. All files must be files of the system. Blocks.

    A damaged manifest of an ingredient can prevent the signature. The manifest is then signed without those of the ingredients.

    Args:
        definition, ingredients, credential, time_stamp_url: as in `sign`.
        folder: folder for temporary files, which have no names.
        time_stamp_limit_s: longest wait for the whole answer of the time stamp authority, seconds.

    Raises:
        LibraryError: as `sign`, or the process ended without an answer, or took too long.
        SignerError: as `sign`, or the command of the credential cannot be started.
        OSError: temporary files cannot be written.
    """
    sign = partial(
        _sign,
        definition,
        credential=credential,
        folder=folder,
        time_stamp_url=time_stamp_url,
        time_stamp_limit_s=time_stamp_limit_s,
    )
    try:
        return SignedManifest(sign(ingredients))
    except LibraryError as problem:
        if problem.of_time_stamp or not ingredients:
            raise
        # If the credential is at fault, this raises the same error.
        return SignedManifest(sign([each.without_manifest() for each in ingredients]), left_out=str(problem))


def _sign(
    definition: dict[str, Any],
    ingredients: Sequence[Ingredient],
    *,
    credential: Credential,
    folder: Path,
    time_stamp_url: str,
    time_stamp_limit_s: float,
) -> bytes:
    """Return a manifest, signed by one process."""
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
    longest_s = limit_s(_BASE_S + time_stamp_limit_s, files)
    try:
        # The command is started here: it has the gateway's environment and none of the limits of the process that signs.
        with signer_process(credential.command) as connection:
            if connection is not None:
                request["signer"] = connection.fileno()
                files.append(connection.fileno())
            done = run_c2pa(
                "sign",
                json.dumps(request).encode(),
                files,
                limit_s=longest_s,
                TMPDIR=str(folder.absolute()),
                **(_way_to_the_authority() if time_stamp_url else {}),
            )
            return _manifest(done, time_stamp_limit_s)
    except subprocess.TimeoutExpired:
        raise LibraryError(f"it took more than {longest_s:.0f} s") from None


def _way_to_the_authority() -> dict[str, str]:
    """Return the variables with the proxies and the trusted certificates of this machine, which c2pa reads itself."""
    names = [f"{kind}_PROXY" for kind in ("ALL", "HTTP", "HTTPS", "NO")]
    names += [*map(str.lower, names), "SSL_CERT_DIR", "SSL_CERT_FILE"]
    return {name: os.environ[name] for name in names if name in os.environ}


def _manifest(done: subprocess.CompletedProcess[bytes], time_stamp_limit_s: float) -> bytes:
    """Return the manifest of an answer, or raise what the answer says."""
    try:
        answer = json.loads(done.stdout.removeprefix(ASKING).removeprefix(ANSWERED))
    except ValueError:
        if done.stdout == ASKING:
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


SIGNING_ERRORS: Final = (LibraryError, SignerError, ValueError, OverflowError)
"""Errors that signing raises, besides errors of the system and of dubstage."""


def signing_error(problem: Exception, film: Path, time_stamp_url: str) -> BackendUnavailable | InvalidRequest:
    """Return the error for a film that was not signed.

    Args:
        problem: one of FAULTS.
        film: name that the film would have got.
        time_stamp_url: the time stamp authority.
    """
    if isinstance(problem, SignerError):
        return BackendUnavailable(f"the command of {SIGNER_SETTING} gave no signature ({problem}); {film} was not written")
    if isinstance(problem, LibraryError) and problem.of_time_stamp:
        return BackendUnavailable(
            f"the time stamp authority {time_stamp_url} gave no time stamp ({problem}); {film} was not "
            f"written. {TIME_STAMP_SETTING} must name an authority that answers as RFC 3161 says"
        )
    return InvalidRequest(f"{film}: its manifest cannot be signed ({problem})", field="output")
