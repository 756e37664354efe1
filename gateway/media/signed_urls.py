"""URLs of a bucket that its store signs, so that callers send and get files without the gateway."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.common.errors import FileMissingError, InvalidRequestError
from services.common.server.call_context import check_not_cancelled
from services.common.store.backends import StoreBackend, open_backend

VALID_S: Final = 3600
"""Seconds for which a signed URL is valid."""
MOST_BYTES: Final = 5 << 30
"""Most bytes that S3 takes in one PUT."""
_PIECE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A signed URL.

    Attributes:
        url: the URL.
        method: method of HTTP that the signature holds for.
        headers: headers that the request must have, with the values that were signed.
        expires_at: time after which the store refuses the URL, Unix time in seconds.
    """

    url: str
    method: str
    headers: Mapping[str, str]
    expires_at: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a bucket.

    Attributes:
        size_bytes: size, bytes.
        sha256: SHA-256 of the bytes that the store has, hexadecimal.
    """

    size_bytes: int
    sha256: str


def sign_upload(object_url: str, *, size_bytes: int, sha256: str) -> SignedUrl:
    """Return a URL that takes one file: the store refuses a body of another size or SHA-256. Blocks.

    Args:
        object_url: URL of the object, s3://BUCKET/KEY.
        size_bytes: size of the file.
        sha256: SHA-256 of the file, hexadecimal.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store cannot sign.
    """
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    expires_at = int(time.time()) + VALID_S
    backend = _opened(object_url)
    with backend.domain_errors():
        url = backend.files.url(
            backend.root, expires=VALID_S, client_method="put_object", ContentLength=size_bytes, ChecksumSHA256=checksum
        )
    return SignedUrl(str(url), "PUT", {"Content-Length": str(size_bytes), "x-amz-checksum-sha256": checksum}, expires_at)


def sign_download(object_url: str) -> SignedUrl:
    """Return a URL that gives an object. Blocks.

    Raises:
        FileMissingError: there is no object.
        StorageRefusedError, BackendUnavailableError: the store cannot sign, or does not answer.
    """
    backend = _opened(object_url)
    _size(backend, object_url)
    expires_at = int(time.time()) + VALID_S
    with backend.domain_errors():
        return SignedUrl(str(backend.files.url(backend.root, expires=VALID_S)), "GET", {}, expires_at)


def checked_object(object_url: str, sha256: str) -> StoredObject:
    """Return an object, all of whose bytes were read. An object with another SHA-256 is removed. Blocks.

    Args:
        object_url: URL of the object.
        sha256: SHA-256 that it must have, hexadecimal.

    Raises:
        FileMissingError: there is no object.
        InvalidRequestError: the object has another SHA-256, and was removed.
        StorageRefusedError, BackendUnavailableError: the store refuses, or does not answer.
    """
    backend = _opened(object_url)
    size, digest = _size(backend, object_url), hashlib.sha256()
    with backend.domain_errors(), backend.files.open(backend.root, "rb", block_size=_PIECE_BYTES) as source:
        while piece := source.read(_PIECE_BYTES):
            check_not_cancelled()
            digest.update(piece)
    actual = digest.hexdigest()
    if actual != sha256:
        with backend.domain_errors():
            backend.files.rm_file(backend.root)
        raise InvalidRequestError(
            f"the {size} bytes of {object_url} have the SHA-256 {actual}, not {sha256}: upload the file again",
            field="sha256",
            named=True,
        )
    return StoredObject(size, actual)


def stored_bytes(folder: str) -> dict[str, int]:
    """Return the size of each object of a folder by its name, bytes. Blocks.

    Args:
        folder: URL of the folder, s3://BUCKET/FOLDER.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store refuses, or does not answer.
    """
    backend = _opened(folder)
    with backend.domain_errors():
        objects = backend.files.find(backend.root, detail=True)
    return {path.removeprefix(f"{backend.root}/"): int(facts.get("size") or 0) for path, facts in objects.items()}


def _opened(url: str) -> StoreBackend:
    return open_backend(url, what="the bucket", setting="DUBSTAGE_MEDIA_URL")


def _size(backend: StoreBackend, object_url: str) -> int:
    try:
        with backend.domain_errors():
            return int(backend.files.info(backend.root)["size"])
    except FileNotFoundError:
        raise FileMissingError(f"there is no object {object_url}", resource=object_url) from None
