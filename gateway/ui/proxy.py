"""Users whom a proxy in front of the gateway has signed in, such as oauth2-proxy with an OIDC provider.

The proxy names the user, and the groups of the user, in headers. The headers count only in requests that come from the networks of
the settings and have the proxy's secret, as far as the settings name networks or a secret. A file has the tenants of the users.
"""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import structlog
from starlette.requests import HTTPConnection

from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.server.auth import file_versions
from services.common.server.call_context import is_tenant
from services.common.server.process_tokens import ProcessTokens

PEER: Final = "peer"
"""Key of the address of the connection's other end in the state of a request. Headers such as X-Forwarded-For do not change the
address."""
SECRET_HEADER: Final = "x-dubstage-proxy-secret"
_GROUP: Final = "@"
_MOST_NAME: Final = 200
_SETTING: Final = "DUBSTAGE_PROXY_USERS_FILE"

_log = structlog.stdlib.get_logger("dubstage.proxy")


def read_users(file: Path) -> dict[str, str]:
    """Return the tenants of users and groups. A line of the file is `TENANT USER` or `TENANT @GROUP`.

    Blank lines and lines that begin with # do not count. Letters of either case are the same.

    Raises:
        InvalidRequestError: the file cannot be read, a line names no tenant or no user, or a user has two tenants.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidRequestError(f"cannot read the file of users {file}: {problem}", field=_SETTING) from problem
    users: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        tenant, _, user = line.strip().partition(" ")
        if not tenant or tenant.startswith("#"):
            continue
        if not is_tenant(tenant) or not user.strip().removeprefix(_GROUP):
            raise InvalidRequestError(
                f"line {number} of the file of users {file}: write TENANT USER or TENANT @GROUP, such as default ada@example.com",
                field=_SETTING,
            )
        if users.setdefault(user.strip().casefold(), tenant) != tenant:
            raise InvalidRequestError(
                f"line {number} of the file of users {file} gives {user.strip()} a second tenant", field=_SETTING
            )
    return users


@dataclass(frozen=True, slots=True)
class ProxyUser:
    """User of a request.

    Attributes:
        name: name as the proxy gives it; empty: the request has no user whom a proxy has signed in.
        authorization: value of `authorization` for the user's calls; empty: the user is refused.
        refusal: why the user is refused; empty: the user is not.
    """

    name: str = ""
    authorization: str = ""
    refusal: str = ""


_NOBODY: Final = ProxyUser()


class ProxyUsers:
    """Finds the users of requests. A changed file counts from the next request on. While the file is unusable, all are refused.

    Args:
        settings: settings of the gateway, with `proxy_user_header`.
        process_tokens: make the authorization of the calls.

    Raises:
        InvalidRequestError: the file of the users, or that of the secret, cannot be used.
    """

    def __init__(self, settings: GatewaySettings, process_tokens: ProcessTokens) -> None:
        assert settings.proxy_users_file is not None
        self._header = settings.proxy_user_header
        self._groups_header = settings.proxy_groups_header
        self._networks = [ip_network(name.strip()) for name in settings.proxy_networks.split(",") if name.strip()]
        self._secret_file, self._file = settings.proxy_secret_file, settings.proxy_users_file
        self._process_tokens = process_tokens
        self._turn = threading.Lock()
        self._users = read_users(self._file)
        self._version = file_versions([self._file])
        self._broken = False
        if self._secret_file is not None:
            _secret(self._secret_file)

    def user(self, request: HTTPConnection) -> ProxyUser:
        """Return the user of a request."""
        names = request.headers.getlist(self._header)
        if not names or not self._is_of_proxy(request):
            return _NOBODY
        name = _text(names[0])
        # Some providers let users choose their names: no user may have the name of a group.
        if len(names) > 1 or not name or len(name) > _MOST_NAME or not name.isprintable() or name.startswith(_GROUP):
            return ProxyUser(name="?", refusal=f"the header {self._header} names no user, or several: check the proxy")
        groups = [_text(part) for line in self._groups_of(request) for part in line.split(",")]
        users = self._current_users()
        wanted = (name.casefold(), *(f"{_GROUP}{group.casefold()}" for group in groups if group))
        tenant = next((users[one] for one in wanted if one in users), None)
        if tenant is None:
            return ProxyUser(name, refusal=f"{name} is no user of this gateway: ask its operator for a line in {_SETTING}")
        return ProxyUser(name, self._process_tokens.of(tenant, name))

    def _groups_of(self, request: HTTPConnection) -> list[str]:
        return request.headers.getlist(self._groups_header) if self._groups_header else []

    def _is_of_proxy(self, request: HTTPConnection) -> bool:
        if self._networks:
            try:
                peer = ip_address(getattr(request.state, PEER, ""))
            except ValueError:
                return False
            peer = getattr(peer, "ipv4_mapped", None) or peer
            if not any(peer in network for network in self._networks):
                return False
        if self._secret_file is None:
            return bool(self._networks)
        try:
            secret = _secret(self._secret_file)
        except InvalidRequestError as problem:
            _log.error("proxy_secret_unusable", message=problem.message)
            return False
        return hmac.compare_digest(request.headers.get(SECRET_HEADER, "").encode("latin-1"), secret)

    def _current_users(self) -> dict[str, str]:
        with self._turn:
            try:
                version = file_versions([self._file])
                if version != self._version:
                    self._users, self._version = read_users(self._file), version
                self._broken = False
            except (OSError, InvalidRequestError) as problem:
                # The next request reads the file again.
                self._users, self._version = {}, ()
                if not self._broken:
                    _log.error("proxy_users_unusable", message=str(problem), effect="users of the proxy are refused")
                self._broken = True
            return self._users


def _secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as problem:
        raise InvalidRequestError(
            f"cannot read the secret of the proxy {file}: {problem.strerror}", field="DUBSTAGE_PROXY_SECRET_FILE"
        ) from problem
    if len(secret) < 16:
        raise InvalidRequestError(
            f"the secret of the proxy {file} has {len(secret)} bytes: give 16 or more", field="DUBSTAGE_PROXY_SECRET_FILE"
        )
    return secret


def _text(value: str) -> str:
    """Return the text of a header: UTF-8, which Starlette reads as Latin-1."""
    return value.encode("latin-1").decode("utf-8", "replace").strip()
