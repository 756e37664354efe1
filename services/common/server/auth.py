"""Bearer tokens: which a server accepts, and which a client sends."""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import structlog

from services.common.errors import InvalidRequestError, UnauthenticatedError
from services.common.server.call_context import DEFAULT_TENANT, Caller, fingerprint_of, is_tenant
from services.common.server.process_tokens import ProcessTokens

AUTHORIZATION_KEY = "authorization"
_SCHEME = "Bearer "

_log = structlog.stdlib.get_logger("dubstage.auth")


def read_tokens(file: Path) -> dict[str, str]:
    """Return the tokens of a file with the tenants that they belong to, in the order of the lines.

    A line is `TENANT TOKEN`, or `TOKEN` for the tenant `default`. Blank lines and lines that begin with # do not count.

    Raises:
        InvalidRequestError: the file cannot be read, holds no token, holds a token that cannot travel in a header, names a tenant
            as no tenant is named, or gives one token to two tenants.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"cannot read the token file {file}: {error}", field="DUBSTAGE_AUTH_TOKEN_FILE") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        tenant, _, token = line.rpartition(" ")
        tenant = tenant.strip() or DEFAULT_TENANT
        if not (token.isascii() and token.isprintable()):
            raise InvalidRequestError(
                f"the token file {file} holds a token that is not plain ASCII", field="DUBSTAGE_AUTH_TOKEN_FILE"
            )
        if not is_tenant(tenant):
            raise InvalidRequestError(
                f"line {number} of the token file {file} names no tenant: write TOKEN or TENANT TOKEN; a tenant's name has 1 to 31 "
                "lower-case letters, digits and inner hyphens",
                field="DUBSTAGE_AUTH_TOKEN_FILE",
            )
        if tokens.setdefault(token, tenant) != tenant:
            raise InvalidRequestError(
                f"line {number} of the token file {file} gives a token to a second tenant: one token belongs to one tenant",
                field="DUBSTAGE_AUTH_TOKEN_FILE",
            )
    if not tokens:
        raise InvalidRequestError(f"the token file {file} holds no token", field="DUBSTAGE_AUTH_TOKEN_FILE")
    return tokens


class TokenCheck:
    """Compares a call's token with the tokens of a file. A changed file counts from the next call on, without a restart.

    Several tokens may be valid at once, so that one can replace another without a gap. While the file cannot be read or holds no
    token, every call is refused: an empty file shuts every caller out.

    Args:
        file: the token file. None accepts every call.
        fingerprint_key: secret that the fingerprints of tokens follow from; None: a random one, for servers that record no
            fingerprints.
        process_tokens: checks tokens of another server of this process; None: such tokens are not accepted.

    Raises:
        InvalidRequestError: as `read_tokens`.
    """

    def __init__(
        self, file: Path | None, fingerprint_key: bytes | None = None, process_tokens: ProcessTokens | None = None
    ) -> None:
        self._file = file
        self._process_tokens = process_tokens
        self._fingerprint_key = fingerprint_key or secrets.token_bytes(32)
        self._tokens: dict[str, str] = {}
        self._version: tuple[tuple[int, ...], ...] = ()
        self._broken = False
        self._lock = threading.Lock()
        if file is not None:
            self._tokens = read_tokens(file)
            self._version = file_versions([file])

    @property
    def required(self) -> bool:
        """Whether a call needs a token."""
        return self._file is not None

    def check(self, authorization: str) -> Caller:
        """Check the value of a call's `authorization` entry, and return who calls. The value is empty where the call has none.

        Raises:
            UnauthenticatedError: the call has no token or a wrong one, or the file holds no token.
        """
        if self._file is None:
            return Caller()
        if self._process_tokens is not None and (caller := self._process_tokens.check(authorization)) is not None:
            return replace(caller, fingerprint=fingerprint_of(f"user {caller.user.casefold()}", self._fingerprint_key))
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        if scheme.lower() != _SCHEME.lower() or not token:
            raise UnauthenticatedError("a bearer token is required: `authorization: Bearer TOKEN`", field="authorization")
        accepted_tokens = self._current_tokens(self._file)
        if not accepted_tokens:
            raise UnauthenticatedError(
                "this server accepts no token now: its token file is empty or cannot be read (see its log)", field="authorization"
            )
        # Every known token is compared, so that the time tells nothing of the tokens.
        tenants = [tenant for accepted, tenant in accepted_tokens.items() if hmac.compare_digest(token.encode(), accepted.encode())]
        if not tenants:
            raise UnauthenticatedError("the bearer token is not one that this server accepts", field="authorization")
        return Caller(tenants[0], fingerprint_of(token, self._fingerprint_key))

    def _current_tokens(self, file: Path) -> dict[str, str]:
        with self._lock:
            try:
                version = file_versions([file])
                if version != self._version:
                    self._tokens, self._version = read_tokens(file), version
            except (OSError, InvalidRequestError) as error:
                # The next call reads the file again, even if the file's times are the same.
                self._tokens, self._version = {}, ()
                if not self._broken:
                    why = f"cannot read the token file {file}: {error.strerror}" if isinstance(error, OSError) else error.message
                    _log.error("token_file_unusable", message=why, effect="every call is refused until it holds tokens again")
                self._broken = True
            else:
                if self._broken:
                    _log.info("token_file_usable_again", tokens=len(self._tokens))
                self._broken = False
            return self._tokens


class OwnToken:
    """Token that a client sends: the first one of a file, read again when the file changes. Any thread may use the object.

    While the file cannot be read or holds no token, the token that was read before is sent. The log says so.

    Args:
        file: the token file.

    Raises:
        InvalidRequestError: as `read_tokens`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._version: tuple[tuple[int, ...], ...] = ()
        self._token = next(iter(read_tokens(file)))

    def current(self) -> str:
        """Return the token."""
        with self._lock:
            try:
                version = file_versions([self._file])
                if version != self._version:
                    self._version = version
                    self._token = next(iter(read_tokens(self._file)))
            except OSError:
                # A file that is about to be replaced may be missing for a moment. A client that is refused says so.
                pass
            except InvalidRequestError as error:
                _log.error("token_file_unusable", message=error.message, effect="the previous token is sent")
            return self._token


def file_versions(files: Iterable[Path]) -> tuple[tuple[int, ...], ...]:
    """Return a value that is another one after a file was written or replaced.

    Raises:
        OSError: a file is missing.
    """
    stats = [os.stat(file) for file in files]
    return tuple((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size) for stat in stats)
