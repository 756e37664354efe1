"""Bearer tokens: which a server accepts, and which a client sends."""

from __future__ import annotations

import hmac
import os
import threading
from pathlib import Path

import structlog

from services.common.errors import InvalidRequest, Unauthenticated

AUTHORIZATION_KEY = "authorization"
_SCHEME = "Bearer "

_log = structlog.stdlib.get_logger("dubstage.auth")


def read_tokens(file: Path) -> tuple[str, ...]:
    """Return the tokens of a file, one token per line. Blank lines and lines that begin with # do not count.

    Raises:
        InvalidRequest: the file cannot be read, holds no token, or holds a token that cannot travel in a header.
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
    """Return the metadata entry that presents a token."""
    return (AUTHORIZATION_KEY, _SCHEME + token)


class TokenCheck:
    """Compares a call's token with the tokens of a file. A changed file counts from the next call on, without a restart.

    Several tokens may be valid at once, so that one can replace another without a gap. While the file cannot be read or holds no
    token, every call is refused: an empty file shuts every caller out.

    Args:
        file: the token file. None accepts every call.

    Raises:
        InvalidRequest: as `read_tokens`.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._tokens: tuple[str, ...] = ()
        self._version: tuple[int, ...] = ()
        self._broken = False
        self._lock = threading.Lock()
        if file is not None:
            self._tokens = read_tokens(file)
            self._version = _version(file)

    def check(self, authorization: str) -> None:
        """Check the value of a call's `authorization` entry; empty where the call has none.

        Raises:
            Unauthenticated: the call has no token or a wrong one, or the file holds no token.
        """
        if self._file is None:
            return
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        if scheme.lower() != _SCHEME.lower() or not token:
            raise Unauthenticated("a bearer token is required: `authorization: Bearer TOKEN`", field="authorization")
        known_tokens = self._current_tokens(self._file)
        if not known_tokens:
            raise Unauthenticated(
                "this server accepts no token now: its token file is empty or cannot be read (see its log)", field="authorization"
            )
        if not any(hmac.compare_digest(token.encode(), known.encode()) for known in known_tokens):
            raise Unauthenticated("the bearer token is not one that this server accepts", field="authorization")

    def _current_tokens(self, file: Path) -> tuple[str, ...]:
        with self._lock:
            try:
                version = _version(file)
                if version != self._version:
                    self._tokens, self._version = read_tokens(file), version
            except (OSError, InvalidRequest) as error:
                # The next call reads the file again, even if the file's times are the same.
                self._tokens, self._version = (), ()
                if not self._broken:
                    why = f"cannot read the token file {file}: {error.strerror}" if isinstance(error, OSError) else error.message
                    _log.error("token_file_unusable", message=why, effect="every call is refused until it holds tokens again")
                self._broken = True
            else:
                if self._broken:
                    _log.info("token_file_usable_again", tokens=len(self._tokens))
                self._broken = False
            return self._tokens


def _version(file: Path) -> tuple[int, ...]:
    stat = os.stat(file)
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)
