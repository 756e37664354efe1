"""The public key that a command trusts: that of an option, or that of this installation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.cli import options
from gateway.consent.keys import read_keys
from gateway.signatures import KEY_FILE, signing_key
from services.common.errors import InvalidRequest


def trusted_key(file: Path | None) -> Callable[[str], Ed25519PublicKey]:
    """Return what finds the trusted public key for the id of a key. Among several keys, the one of that id is taken.

    Args:
        file: PEM file, or folder of PEM files, with public keys; None: the key of this installation.

    Raises:
        InvalidRequest: the file holds no key, or no file is given and this installation has not signed anything yet.
    """
    if file is not None:
        keys = dict(read_keys(file, field="--key"))
        first = next(iter(keys.values()))
        return lambda asked: keys.get(asked, first)
    settings = options.gateway_settings()
    folder = settings.data_dir
    if settings.signing_key_file is None and not os.path.lexists(folder / KEY_FILE):
        raise InvalidRequest(
            f"this installation has no key: {folder / KEY_FILE} is missing. Give the public key of the installation that "
            "signed, with --key PUBLIC.pem",
            field="key",
        )
    own = signing_key(folder, settings.signing_key_file).public
    return lambda _: own
