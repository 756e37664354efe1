"""File systems under the artefact store. Failures become errors that say what a person can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from services.common.errors import (
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    StorageFullError,
    StorageRefusedError,
)
from services.common.files import FULL_DISK

S3_ATTEMPTS: Final = 2
"""Attempts of one request. A whole operation is tried twice, so that a broken body is read again: four attempts, about a minute."""
S3_CONNECT_SECONDS = 4.0
S3_READ_SECONDS = 15.0
"""Longest silence in an answer, seconds."""
S3_CONNECTIONS: Final = 64
"""Most requests at once: the records of a batch are read together."""

_FULL_CODES: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})
_EXISTS_CODES: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
"""Codes of a refused If-None-Match: the object is there, or another request writes it."""
_UNCONDITIONAL_CODES: Final = frozenset({"NotImplemented", "501"})
_BUSY_STATUS: Final = 429
_SERVERS_FAULT: Final = 500
ARTEFACTS: Final = "the artefact store"
ARTEFACTS_SETTING: Final = "DUBSTAGE_ARTEFACTS_URL"


@dataclass(frozen=True, slots=True)
class StoreBackend:
    """Opened file system.

    Attributes:
        files: the file system of fsspec.
        root: the store's folder or bucket/prefix, without a slash at the end.
        local: whether the store is a folder of this machine.
        has_folders: whether a blob's folder must be made first. Object stores have no folders, and would make a bucket.
        what: what lies there, for messages, such as `the artefact store`.
        setting: setting that holds the url, for messages.
    """

    files: Any
    root: str
    local: bool
    has_folders: bool
    what: str = ARTEFACTS
    setting: str = ARTEFACTS_SETTING

    @property
    def url(self) -> str:
        """Root with its protocol."""
        return str(self.files.unstrip_protocol(self.root))

    @property
    def public_url(self) -> str:
        """Root as callers may see it: the name of a folder without its path, a url without credentials."""
        if self.local:
            return f"file://…/{self.root.rpartition('/')[2]}"
        protocol, _, address = self.url.partition("://")
        return f"{protocol}://{address.rpartition('@')[2].partition('?')[0]}"

    @property
    def where(self) -> str:
        """Root and its server's address, for error texts."""
        endpoint = "" if self.local else _s3_endpoint()
        return f"{self.url} at {endpoint}" if endpoint and self.url.startswith("s3://") else self.url

    def write(self, path: str, content: bytes, *, replace: bool) -> bool:
        """Write a small object of a remote store, and return whether it was written.

        Args:
            path: path of the object.
            content: the bytes.
            replace: whether an object that is there is replaced; False: it stays.
        """
        if replace:
            self.files.pipe_file(path, content)
            return True
        try:
            self.files.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            code, _ = _code_and_status(error)
            if code in _EXISTS_CODES:
                return False
            if code not in _UNCONDITIONAL_CODES:
                raise
            # The server does not know If-None-Match.
            if self.files.exists(path):
                return False
            self.files.pipe_file(path, content)
        return True

    def keeps_old_versions(self) -> bool:
        """Return whether deleted blobs stay behind as old versions; False where the store cannot be asked."""
        if self.local or self.has_folders:
            return False
        try:
            answer = self.files.call_s3("get_bucket_versioning", Bucket=self.root.partition("/")[0])
        except OSError:
            return False
        return answer.get("Status") is not None

    @contextmanager
    def domain_errors(self) -> Iterator[None]:
        """Turn failures inside the block into errors of the tree. FileNotFoundError passes unchanged.

        Raises:
            StorageFullError: no space is left.
            StorageRefusedError: credentials, permissions, bucket or region are wrong.
            BackendUnavailableError: the store does not answer, or answers that it cannot serve now.
        """
        try:
            yield
        except OSError as error:
            failure = self._local_failure(error) if self.local else self._remote_failure(error)
            if failure is None:
                raise
            raise failure from error
        except Exception as error:
            failure = None if self.local else self._remote_failure(error)
            if failure is None:
                raise
            raise failure from error

    @property
    def _elsewhere(self) -> str:
        return f"point {self.setting} elsewhere"

    @property
    def _s3_remedy(self) -> str:
        return (
            f"check {self.setting}, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL, "
            "and that these credentials may list the bucket and get, put and delete its objects"
        )

    def _local_failure(self, error: OSError) -> DubstageError | None:
        if error.errno in FULL_DISK:
            return StorageFullError(
                f"no space left in {self.what} {self.public_url}: free some, or {self._elsewhere}", subject=self.public_url
            )
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
            return StorageRefusedError(
                f"{self.what} {self.public_url} cannot be used: {error.strerror}: make it a folder that this user may "
                f"write, or {self._elsewhere}",
                subject=self.public_url,
            )
        return None

    def _remote_failure(self, error: Exception) -> DubstageError | None:
        code, status = _code_and_status(error)
        if code or status:
            return self._answered(error, code, status)
        if isinstance(error, FileNotFoundError):
            return None
        if isinstance(error, OSError) or _is_connection_failure(error):
            return BackendUnavailableError(
                f"{self.what} {self.where} does not answer ({_short(error)}): check the address and the network",
                retry_after_s=5.0,
            )
        if _is_botocore(error) or (isinstance(error, ValueError) and "endpoint" in str(error)):
            return StorageRefusedError(
                f"{self.what} {self.where} cannot be used: {_short(error)}: {self._s3_remedy}", subject=self.url
            )
        return None

    def _answered(self, error: Exception, code: str, status: int) -> DubstageError | None:
        if code in _FULL_CODES:
            return StorageFullError(f"no space left in {self.what} {self.where}: free some, or {self._elsewhere}", subject=self.url)
        if status >= _SERVERS_FAULT or status == _BUSY_STATUS or code in {"SlowDown", "RequestTimeout"}:
            return BackendUnavailableError(
                f"{self.what} {self.where} cannot answer now: {code} {_short(error)}".rstrip(), retry_after_s=5.0
            )
        if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            return None
        return StorageRefusedError(f"{self.what} {self.where} refuses: {code} {_short(error)}: {self._s3_remedy}", subject=self.url)


def open_backend(url: str | os.PathLike[str], *, what: str = ARTEFACTS, setting: str = ARTEFACTS_SETTING) -> StoreBackend:
    """Return the file system of a store's url. The store is not asked yet.

    Args:
        url: path, or URL of fsspec.
        what: what lies there, for messages.
        setting: setting or field that holds the url, for messages.

    Raises:
        InvalidRequestError: there is no such protocol, its package is not installed, or the url names no bucket.
    """
    text = os.fspath(url)
    if text.startswith("s3://") and not text.removeprefix("s3://").partition("/")[0]:
        raise InvalidRequestError(f"{text} names no bucket: s3://BUCKET/PREFIX", field=setting)
    options: dict[str, Any] = _s3_options() if text.startswith("s3://") else _http_options() if text.startswith("http") else {}
    try:
        files, root = fsspec.core.url_to_fs(text, **options)
    except (ImportError, ValueError) as error:
        remedy = ": pip install 'dubstage-suite[s3]'" if text.startswith("s3://") and isinstance(error, ImportError) else ""
        raise InvalidRequestError(f"cannot open {what} {text}: {error}{remedy}", field=setting) from error
    if text.startswith("s3://"):
        # The number is set on the instance: s3fs has no argument for retries, and multiplies botocore's attempts by five.
        files.retries = S3_ATTEMPTS
    root = str(root).rstrip("/")
    return StoreBackend(
        files,
        root,
        local=isinstance(files, LocalFileSystem),
        has_folders=not text.startswith("s3://"),
        what=what,
        setting=setting,
    )


def _s3_options() -> dict[str, Any]:
    return {
        # Another process may have stored or deleted blobs since a cached listing.
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": S3_CONNECT_SECONDS,
            "read_timeout": S3_READ_SECONDS,
            "max_pool_connections": S3_CONNECTIONS,
            # Signed URLs of the former version hold for a body of any size.
            "signature_version": "s3v4",
            "retries": {"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
        },
    }


def _http_options() -> dict[str, Any]:
    try:
        from aiohttp import ClientTimeout
    except ImportError:  # fsspec's error names the package
        return {}
    # A large file takes longer than the five minutes that aiohttp gives an answer; a silent server is given up.
    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=S3_CONNECT_SECONDS, sock_read=S3_READ_SECONDS)}}


def _s3_endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _code_and_status(error: Exception) -> tuple[str, int]:
    """Return the code and the HTTP status of an answer of S3; empty and 0: the error is no answer."""
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if not isinstance(answer, dict):
        return "", 0
    return str(answer.get("Error", {}).get("Code", "")), int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_botocore(error: Exception) -> bool:
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return False
    return isinstance(error, BotoCoreError)


def _is_connection_failure(error: Exception) -> bool:
    try:
        from aiohttp import ClientError
        from botocore.exceptions import ConnectionError, HTTPClientError
    except ImportError:
        return False
    return isinstance(error, ClientError | ConnectionError | HTTPClientError)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".:")
