"""Tokens with which one server of a process tells another server of the same process who calls."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from typing import Final

from services.common.errors import UnauthenticatedError
from services.common.server.call_context import Caller

_SCHEME: Final = "Process "


class ProcessTokens:
    """Signs and checks tokens with a key that only this process has. A restart ends all of them."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, tenant: str, user: str) -> str:
        """Return the value of `authorization` for calls of a user.

        Args:
            tenant: tenant that the user works for.
            user: name of the user.
        """
        content = base64.urlsafe_b64encode(json.dumps([tenant, user]).encode()).decode()
        return f"{_SCHEME}{content}.{self._signature(content)}"

    def check(self, authorization: str) -> Caller | None:
        """Return who calls, without a fingerprint; None: the value is no token of a process.

        Raises:
            UnauthenticatedError: another process made the token.
        """
        if not authorization.startswith(_SCHEME):
            return None
        content, _, signature = authorization.removeprefix(_SCHEME).partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            raise UnauthenticatedError("another process made this token: sign in again", field="authorization")
        tenant, user = json.loads(base64.urlsafe_b64decode(content))
        return Caller(tenant, user=user)

    def _signature(self, content: str) -> str:
        return hmac.digest(self._key, content.encode(), "sha256").hex()
