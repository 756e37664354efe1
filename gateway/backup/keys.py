"""The secret keys of an installation that a backup holds: of the receipts and audit logs, and of the films' content credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.private_files import cannot_use_key, keep_secret
from gateway.provenance.credential import KEY_FILE
from gateway.signatures.installation import KEY_FILE as SIGNING
from services.common.errors import InvalidRequest

KEYS: Final = {
    "receipt.key": "signed the receipts of earlier versions",
    SIGNING: "signs receipts and audit logs",
    KEY_FILE: "signs films",
}
"""Files in the data folder, and what each key does. A backup has a member of the same name for each file that exists."""


def keys_in(folder: Path) -> dict[str, bytes]:
    """Return the keys of a data folder by file name. A key that the installation has not made yet is left out.

    Raises:
        StorageRefused: a file cannot be read.
    """
    return {name: content for name in KEYS if (content := _content(folder / name)) is not None}


def check_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Check that a data folder has no other keys than those of a backup.

    Args:
        folder: the data folder.
        keys: keys of the backup by file name.

    Raises:
        InvalidRequest: a file holds another key.
        StorageRefused: a file cannot be read.
    """
    for name, key in keys.items():
        if _content(folder / name) not in (None, key):
            raise InvalidRequest(
                f"{folder / name} is another key than the backup's, and the backup's {KEYS[name]}: move the file away, "
                "then restore again",
                field="file",
            )


def keep_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Write the keys of a backup to a data folder (mode 0600). A file that exists stays as it is.

    Args:
        folder: the data folder.
        keys: keys of the backup by file name.

    Raises:
        InvalidRequest: a file holds another key.
        StorageRefused: a file cannot be read or written.
    """
    for name, key in keys.items():
        try:
            keep_secret(folder / name, key)
        except OSError as problem:
            raise cannot_use_key(folder / name, problem) from problem
    # Another process may have made a key of its own since the check before the blobs.
    check_keys(folder, keys)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.exists() else None
    except OSError as problem:
        raise cannot_use_key(file, problem) from problem
