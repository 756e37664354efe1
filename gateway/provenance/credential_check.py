"""Checks a credential before any work: signs a few bytes, and reads the manifest back as every reader of films would."""

from __future__ import annotations

import io
from typing import Any, Final

from gateway.provenance.binding import sidecar_binding
from gateway.provenance.library import UNKNOWN, LibraryError, read, sign
from gateway.provenance.signer_command import running
from gateway.provenance.signing_key import Credential

_CREATED: Final = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
_PROBE: Final[dict[str, Any]] = {
    "claim_generator_info": [{"name": "dubstage"}],
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [_CREATED]}}],
}


def check_credential(credential: Credential) -> None:
    """Sign a few bytes in this process, since no file of a stranger is read, and read the manifest back.

    Raises:
        LibraryError: c2pa refuses the credential, or readers would call its manifests invalid. The text is c2pa's reason.
        SignerError: the command of the credential gives no signature.
    """
    probe = io.BytesIO(b"dubstage")
    asked = {**_PROBE, "assertions": [*_PROBE["assertions"], sidecar_binding(probe)]}
    with running(credential.command) as connection:
        manifest = sign(asked, (), credential, connection=connection)
    told = read(probe, UNKNOWN, sidecar=manifest)
    faults = told["validation_results"]["activeManifest"]["failure"] if told else [{"code": "no manifest"}]
    reasons = [fault.get("explanation") or fault["code"] for fault in faults if fault["code"] != "signingCredential.untrusted"]
    if reasons:
        raise LibraryError("; ".join(reasons))
