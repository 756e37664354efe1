"""Certificate chain and private key that videos are signed with: PEM files of the user, or a pair made for the installation."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.private_files import own_key
from gateway.provenance.signer import Credential
from gateway.safe_paths import bounded_bytes, setting_bytes
from services.common.errors import InvalidRequestError, StorageRefusedError

KEY_FILE: Final = "provenance.pem"
"""File of the installation's own key and certificates, in the data folder."""
SELF_SIGNED: Final = "self-signed"
"""Word in the names of the installation's certificates, which every reader of the manifest shows."""
CERTIFICATE_SETTING: Final = "DUBSTAGE_PROVENANCE_CERTIFICATE_FILE"
_KEY_SETTING: Final = "DUBSTAGE_PROVENANCE_KEY_FILE"
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MOST_BYTES: Final = 4 << 20
"""Largest file of certificates or of a key that is read, bytes."""
_VALID_YEARS: Final = 30
_HOUR: Final = datetime.timedelta(hours=1)
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


def credential_of(chain: bytes, key: bytes) -> Credential:
    """Return the credential of a chain and a key.

    Raises:
        ValueError: one of the two is no PEM, or the key is of an unknown kind, too short or encrypted, or belongs to another
            certificate. The message says which.
    """
    signer = _signer_of(chain)
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise ValueError("the key is encrypted, and dubstage knows no password: give a key without encryption") from None
    except ValueError:
        raise ValueError("the key file has no PEM private key") from None
    algorithm = _algorithm(private)
    if private.public_key() != signer.public_key():
        raise ValueError("the key does not belong to the first certificate of the chain")
    return Credential(chain, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), algorithm)


def _signer_of(chain: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ValueError("the certificate file has no PEM certificate") from None


def serial_number_of(chain: bytes) -> str:
    """Return the serial number of the signer's certificate, decimal, as c2pa names it.

    Args:
        chain: certificates, PEM: the signer's first.
    """
    return str(_signer_of(chain).serial_number)


def _algorithm(key: object) -> str:
    if isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, EllipticCurvePrivateKey | EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, RSAPrivateKey | RSAPublicKey) and key.key_size >= 2048:
        return "ps256"
    raise ValueError("the key is of no kind that C2PA takes: Ed25519, ECDSA P-256, P-384 or P-521, or RSA of 2048 bits or more")


def credential_from_files(chain: Path, key: Path) -> Credential:
    """Return the credential of the PEM files that the settings name.

    Raises:
        InvalidRequestError: a file cannot be read or used.
    """
    files = ((chain, CERTIFICATE_SETTING), (key, _KEY_SETTING))
    contents = [setting_bytes(file, setting, _MOST_BYTES) for file, setting in files]
    try:
        return credential_of(*contents)
    except ValueError as problem:
        setting = CERTIFICATE_SETTING if "certificate file" in str(problem) else _KEY_SETTING
        raise InvalidRequestError(f"{CERTIFICATE_SETTING}={chain}, {_KEY_SETTING}={key}: {problem}", field=setting) from problem


def credential_of_command(chain: Path, command: Sequence[str]) -> Credential:
    """Return the credential of a certificate whose private key a command has.

    Args:
        chain: PEM file that the settings name.
        command: program and arguments.

    Raises:
        InvalidRequestError: the file cannot be read or used.
    """
    certificates = setting_bytes(chain, CERTIFICATE_SETTING, _MOST_BYTES)
    try:
        algorithm = _algorithm(_signer_of(certificates).public_key())
    except ValueError as problem:
        raise InvalidRequestError(f"{CERTIFICATE_SETTING}={chain}: {problem}", field=CERTIFICATE_SETTING) from problem
    return Credential(certificates, b"", algorithm, tuple(command))


def certificates_in(file: Path) -> bytes:
    """Return the certificates of a PEM file, PEM, without what else the file holds.

    Raises:
        InvalidRequestError: the file cannot be read or has no certificate.
    """
    try:
        certificates = x509.load_pem_x509_certificates(bounded_bytes(file, _MOST_BYTES))
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror}", field="trust") from problem
    except ValueError:
        raise InvalidRequestError(
            f"{file} has no PEM certificate; give the certificates of the trusted authorities", field="trust"
        ) from None
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def installation_credential(folder: Path) -> Credential:
    """Return the installation's own credential. The first call makes the key, and certificates that say `self-signed`.

    Args:
        folder: the gateway's data folder.

    Raises:
        StorageRefusedError: the file cannot be read or written, or is damaged.
    """
    file = folder / KEY_FILE
    key, begin, chain = own_key(file, _own_credential, most_bytes=_MOST_BYTES).partition(_BEGIN)
    try:
        return credential_of(begin + chain, key)
    except ValueError as problem:
        raise StorageRefusedError(
            f"the key {file} is damaged ({problem}): restore the file from a backup, or remove the file. Videos are then signed "
            "with a new key",
            subject=str(file),
        ) from problem


def _own_credential() -> bytes:
    """Return a new key with its certificate, and the certificate of an authority whose key is forgotten at once, PEM.

    C2PA refuses a signer's certificate that is signed by its own key, so there is an authority for this one certificate.
    """
    authority, signer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    above = _name(f"dubstage installation authority ({SELF_SIGNED})")
    own = _name(f"dubstage installation ({SELF_SIGNED})")
    root = _certificate(above, above, authority, authority, is_authority=True)
    leaf = _certificate(own, above, signer, authority, is_authority=False)
    private = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dubstage"), x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey, authority: Ed25519PrivateKey, *, is_authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + datetime.timedelta(days=365 * _VALID_YEARS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if not is_authority:
        # The purpose that C2PA's own trust lists know signers of content by.
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(authority, None)
