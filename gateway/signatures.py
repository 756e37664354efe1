"""Documents that an installation signs with its own key: receipts of erasures, and heads of the audit log.

Signed is the canonical form of a JSON document: equal documents have equal bytes. The Ed25519 key is a file in the data folder that
the first signature makes.

The package cryptography is imported in functions: most commands use no key.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.consent.keys import MAX_BYTES, key_id, read_private_key
from gateway.private_files import own_key
from services.common.errors import InvalidRequestError, StorageRefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def canonical(document: Any) -> bytes:
    """Return a JSON document as ASCII without line breaks: sorted keys, no spaces, every other character escaped.

    Raises:
        ValueError: the document holds a number that JSON does not have.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def plain_json(content: bytes) -> Any:
    """Return the JSON document of a text.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a key twice")
    return members


KEY_FILE: Final = "signing.pem"
"""File of the key in the data folder, PEM, PKCS 8, mode 0600."""

KEY_SETTING: Final = "DUBSTAGE_SIGNING_KEY_FILE"

TOKEN_FINGERPRINTS: Final = b"dubstage fingerprints of tokens"
"""Purpose of the secret that the fingerprints of tokens in the audit log follow from."""


class InstallationKey:
    """Key that an installation signs with.

    Attributes:
        id: SHA-256 of the public key (`gateway.consent.keys.key_id`), 64 hexadecimal digits.
        public: the public key.

    Args:
        private: the private key.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: Ed25519PublicKey = private.public_key()
        self.id: str = key_id(self.public)

    @property
    def public_pem(self) -> str:
        """The public key, PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def sign(self, content: bytes) -> str:
        """Return the signature of a text, Base64."""
        return base64.b64encode(self._private.sign(content)).decode("ascii")

    def derived(self, purpose: bytes) -> bytes:
        """Return the installation's secret for a purpose, 32 bytes. A secret tells nothing of the key or of another secret."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(self._private.private_bytes_raw())


def installation_key(folder: Path) -> InstallationKey:
    """Return the key of an installation. The first call makes the key.

    Args:
        folder: the gateway's data folder.

    Raises:
        StorageRefusedError: the file cannot be read or written, or is damaged.
    """
    file = folder / KEY_FILE
    own_key(file, _new_key, most_bytes=MAX_BYTES)
    try:
        return InstallationKey(read_private_key(file))
    except InvalidRequestError:
        raise StorageRefusedError(
            f"the key {file} is damaged: restore the file from a backup, or remove the file. Receipts and audit logs are then "
            "signed with a new key, and the old public key still checks the old ones",
            subject=str(file),
        ) from None


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signing_key(folder: Path, file: Path | None) -> InstallationKey:
    """Return the key that receipts and audit logs are signed with.

    Args:
        folder: the gateway's data folder.
        file: PEM file of KEY_SETTING; None: the key of the data folder.

    Raises:
        InvalidRequestError: the file of the setting cannot be used.
        StorageRefusedError: from `installation_key`.
    """
    if file is None:
        return installation_key(folder)
    return InstallationKey(read_private_key(file, KEY_SETTING))


def is_signed(content: bytes, signature: object, key: Ed25519PublicKey) -> bool:
    """Return whether a signature (Base64) is that of a text by a key."""
    from cryptography.exceptions import InvalidSignature

    if not isinstance(signature, str):
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
