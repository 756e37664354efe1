"""Bearer tokens: which a server accepts, and which a client sends."""

from __future__ import annotations

import hmac
import os
import threading
from pathlib import Path

from services.common.errors import InvalidRequest, Unauthenticated

AUTHORIZATION_KEY = "authorization"
_SCHEME = "Bearer "


def read_tokens(file: Path) -> tuple[str, ...]:
    """The tokens of a file, one a line; blank lines and lines that begin with # do not count.

    Raises:
        InvalidRequest: the file cannot be read, holds no token, or one that cannot travel in a header.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read the token file {file}: {error}", field="DUBSTAGE_AUTH_TOKEN_FILE") from error
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise InvalidRequest(f"the token file {file} holds no token", field="DUBSTAGE_AUTH_TOKEN_FILE")
    if not all(token.isascii() and token.isprintable() and " " not in token for token in tokens):
        raise InvalidRequest(f"the token file {file} holds a token that is not plain ASCII", field="DUBSTAGE_AUTH_TOKEN_FILE")
    return tokens


def bearer(token: str) -> tuple[str, str]:
    """The metadata entry that presents a token."""
    return (AUTHORIZATION_KEY, _SCHEME + token)


class TokenCheck:
    """Compares a call's token with those of a file; a changed file counts from the next call on, without a restart.

    Several tokens may be valid at once, so that one can replace another without a gap.

    Args:
        file: None accepts every call.

    Raises:
        InvalidRequest: as `read_tokens`.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._tokens: tuple[str, ...] = ()
        self._version: tuple[int, int] = (0, 0)
        self._lock = threading.Lock()
        if file is not None:
            self._tokens = read_tokens(file)
            self._version = _version(file)

    def check(self, authorization: str) -> None:
        """Check the value of the call's `authorization` entry, empty where it has none.

        Raises:
            Unauthenticated: no token, or a wrong one.
        """
        if self._file is None:
            return
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        if scheme.lower() != _SCHEME.lower() or not token:
            raise Unauthenticated("a bearer token is required: `authorization: Bearer TOKEN`", field="authorization")
        if not any(hmac.compare_digest(token.encode(), known.encode()) for known in self._current_tokens(self._file)):
            raise Unauthenticated("the bearer token is not one that this server accepts", field="authorization")

    def _current_tokens(self, file: Path) -> tuple[str, ...]:
        with self._lock:
            try:
                version = _version(file)
                if version != self._version:
                    self._tokens, self._version = read_tokens(file), version
            except (OSError, InvalidRequest):
                # While the file is being replaced the last tokens stay valid.
                pass
            return self._tokens


def _version(file: Path) -> tuple[int, int]:
    stat = os.stat(file)
    return (stat.st_mtime_ns, stat.st_ino)
