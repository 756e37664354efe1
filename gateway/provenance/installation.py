"""The sealer of an installation and the authorities that an installation trusts, from the settings. The credential is checked
first.
"""

from __future__ import annotations

import io
import os
import shlex
from typing import Final

from gateway.provenance.binding import sidecar_binding
from gateway.provenance.claim import bytes_definition
from gateway.provenance.credential import (
    CERTIFICATE_SETTING,
    KEY_FILE,
    certificates_in,
    credential_from_files,
    credential_of_command,
    installation_credential,
)
from gateway.provenance.library import LibraryError, read, sign
from gateway.provenance.seal import Sealer
from gateway.provenance.signer import SIGNER_SETTING, Credential, SignerError, signer_process
from gateway.provenance.watermark.payload import watermark_key
from gateway.safe_paths import setting_bytes
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailableError, InvalidRequestError

WATERMARK_SETTING: Final = "DUBSTAGE_WATERMARK_KEY_FILE"
_SECRET_BYTES: Final = 32
_MOST_BYTES: Final = 1 << 20


def check_credential(credential: Credential) -> None:
    """Sign a few bytes in this process, since no file of a stranger is read, and read the manifest back.

    Raises:
        LibraryError: c2pa refuses the credential, or readers would call its manifests invalid. The text is c2pa's reason.
        SignerError: the command of the credential gives no signature.
    """
    probe = io.BytesIO(b"dubstage")
    with signer_process(credential.command) as connection:
        manifest = sign(bytes_definition(sidecar_binding(probe)), (), credential, connection=connection)
    report = read(probe, sidecar=manifest)
    faults = report["validation_results"]["activeManifest"]["failure"] if report else [{"code": "no manifest"}]
    reasons = [fault.get("explanation") or fault["code"] for fault in faults if fault["code"] != "signingCredential.untrusted"]
    if reasons:
        raise LibraryError("; ".join(reasons))


def open_sealer(settings: GatewaySettings) -> Sealer:
    """Return what signs the videos of an installation. Without a certificate in the settings, the first call makes a key.

    Raises:
        BackendUnavailableError: the command of the settings gives no signature.
        InvalidRequestError: the files of the settings cannot be used.
        StorageRefusedError: the installation's own key cannot be made or read.
    """
    credential = _credential(settings)
    key = watermark_key(_watermark_secret(settings)) if settings.watermark else None
    sealer = Sealer(credential, settings.provenance_time_stamp_url, watermark_key=key, watermark_public=settings.watermark_public)
    chain = settings.provenance_certificate_file
    if chain is None:
        return sealer
    try:
        check_credential(credential)
    except SignerError as fault:
        raise BackendUnavailableError(f"the command of {SIGNER_SETTING} gave no signature ({fault})") from fault
    except LibraryError as problem:
        raise InvalidRequestError(
            f"{CERTIFICATE_SETTING}={chain}: C2PA does not accept the certificate ({problem}); give the chain of a certificate for "
            "content credentials, the signer's first",
            field=CERTIFICATE_SETTING,
        ) from problem
    return sealer


def own_watermark_key(settings: GatewaySettings) -> bytes | None:
    """Return the key of the watermarks of this installation, 32 bytes; None: the installation has not signed a video yet.

    Raises:
        InvalidRequestError: the files of the settings cannot be used.
        StorageRefusedError: the installation's own key cannot be read.
    """
    if settings.watermark_key_file is None:
        if settings.provenance_signer_command:
            return None
        if settings.provenance_certificate_file is None and not os.path.lexists(settings.data_dir / KEY_FILE):
            return None
    return watermark_key(_watermark_secret(settings))


def _watermark_secret(settings: GatewaySettings) -> bytes:
    """Return what the key of the watermarks is derived from."""
    file = settings.watermark_key_file
    if file is None:
        return _credential(settings).key
    secret = setting_bytes(file, WATERMARK_SETTING, _MOST_BYTES)
    if len(secret) < _SECRET_BYTES:
        raise InvalidRequestError(
            f"{file} has {len(secret)} bytes; give a file of at least {_SECRET_BYTES} random bytes",
            field=WATERMARK_SETTING,
            named=True,
        )
    return secret


def _credential(settings: GatewaySettings) -> Credential:
    chain, key = settings.provenance_certificate_file, settings.provenance_key_file
    if chain is not None and settings.provenance_signer_command:
        return credential_of_command(chain, shlex.split(settings.provenance_signer_command))
    if chain is None or key is None:
        return installation_credential(settings.data_dir)
    return credential_from_files(chain, key)


def trusted_authorities(settings: GatewaySettings) -> bytes:
    """Return the certificates that this installation signs with, PEM; empty: it has not signed yet.

    Raises:
        InvalidRequestError: the file of the certificates cannot be read.
    """
    file = settings.provenance_certificate_file or settings.data_dir / KEY_FILE
    return certificates_in(file) if os.path.lexists(file) else b""
