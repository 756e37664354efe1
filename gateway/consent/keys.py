"""Signatures of consent records: Ed25519 keys in PEM files.

There is one algorithm, and a signature names its key by the key's digest. A record cannot choose how it is checked, as the header
of a JWS can, and `openssl pkeyutl -rawin` can make and check the same signatures.

The package cryptography is imported in functions: most commands use no key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.consent.record import Consent, ConsentSignature, canonical_form
from gateway.safe_paths import bounded_bytes
from services.common.errors import ConsentAlteredError, ConsentSignerUnknownError, InvalidRequestError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SETTING: Final = "DUBSTAGE_CONSENT_KEYS"
"""Setting that names the trusted keys."""
MAX_BYTES: Final = 1 << 20
"""Largest file of keys that is read, bytes."""
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

Keys = Mapping[str, "Ed25519PublicKey"]
"""Public keys by their ids (`key_id`)."""


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of a public key: SHA-256 of its SubjectPublicKeyInfo in DER, 64 hexadecimal digits."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_keys(source: Path, *, field: str = SETTING) -> Keys:
    """Return the public keys of a PEM file, or of all files of a folder. Names that begin with a dot are skipped.

    Args:
        source: the file or the folder.
        field: setting or option that names the source, for messages.

    Raises:
        InvalidRequestError: the source cannot be read, or a file holds anything else than Ed25519 public keys.
    """
    try:
        # Kubernetes mounts a Secret as links, and keeps its versions in folders whose names begin with two dots.
        files = [path for path in sorted(source.iterdir()) if not path.name.startswith(".")] if source.is_dir() else [source]
        keys = {key_id(key): key for file in files for key in _keys_in(file, field)}
    except OSError as problem:
        raise InvalidRequestError(
            f"{problem.filename or source} cannot be read: {problem.strerror or problem}", field=field, named=True
        ) from problem
    if not keys:
        raise InvalidRequestError(f"{source} holds no public key: give PEM files with Ed25519 public keys", field=field, named=True)
    return keys


def _keys_in(file: Path, field: str) -> Iterator[Ed25519PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    blocks = list(_BLOCK.finditer(bounded_bytes(file, MAX_BYTES)))
    if not blocks:
        raise InvalidRequestError(f"{file} holds no PEM block: give PEM files with Ed25519 public keys", field=field, named=True)
    for block in blocks:
        if b"PRIVATE" in block[1]:
            raise InvalidRequestError(f"{file} holds a private key: give the public keys only", field=field, named=True)
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidRequestError(f"{file} holds something else than Ed25519 public keys", field=field, named=True)
        yield key


def read_private_key(file: Path, field: str = "key") -> Ed25519PrivateKey:
    """Return the private key of a PEM file.

    Args:
        field: option or setting that names the file, for the error.

    Raises:
        InvalidRequestError: the file cannot be read, holds no Ed25519 private key, or the key is encrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(bounded_bytes(file, MAX_BYTES), password=None)
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror or problem}", field=field, named=True) from problem
    except TypeError:
        raise InvalidRequestError(
            f"{file} is encrypted: decrypt it with `openssl pkey -in {file} -out PLAIN`", field=field, named=True
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequestError(
            f"{file} holds no Ed25519 private key in PEM: `openssl genpkey -algorithm ed25519 -out {file}` makes one",
            field=field,
            named=True,
        )
    return key


def signed(consent: Consent, key: Ed25519PrivateKey) -> Consent:
    """Return a record with its signature. An earlier signature is replaced."""
    value = base64.b64encode(key.sign(canonical_form(consent))).decode()
    signature = ConsentSignature(algorithm="Ed25519", key=key_id(key.public_key()), value=value)
    return consent.model_copy(update={"signature": signature})


def check_signature(consent: Consent, keys: Keys, subject: str) -> None:
    """Check the signature of a signed record.

    Args:
        consent: the record.
        keys: the trusted keys.
        subject: whom or what the error is about.

    Raises:
        ConsentSignerUnknownError: no trusted key has the id that the signature names.
        ConsentAlteredError: the signature does not fit the record.
    """
    from cryptography.exceptions import InvalidSignature

    signature = consent.signature
    assert signature is not None, "only signed records are checked"
    key = keys.get(signature.key)
    if key is None:
        raise ConsentSignerUnknownError(
            f"the consent record is signed with the key {signature.key}, which {SETTING} does not hold: ask for a record signed "
            "with a trusted key, or add the public key",
            subject=subject,
        )
    try:
        key.verify(base64.b64decode(signature.value), canonical_form(consent))
    except InvalidSignature:
        raise ConsentAlteredError(
            "the signature does not fit the consent record: record or signature was altered after the signing",
            subject=subject,
        ) from None
