"""Users whom a proxy names: which requests are believed, the file of the users, and who is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway.settings import GatewaySettings
from gateway.ui.proxy import PEER, ProxyUser, ProxyUsers, read_users
from gateway.ui.session import Sessions
from services.common.errors import InvalidRequestError, UnauthenticatedError
from services.common.server.auth import TokenCheck
from services.common.server.process_tokens import ProcessTokens
from services.common.server.settings import load_settings

SECRET = "secret-of-the-proxy"


class Door:
    """A gateway's sessions behind a proxy."""

    def __init__(self, folder: Path, users: str = "default ada@example.com\nacme @Dubbing\n", **settings: Any) -> None:
        self.file, self.secret, tokens = folder / "users", folder / "secret", folder / "tokens"
        self.file.write_text(users)
        self.secret.write_text(f"{SECRET}\n")
        tokens.write_text("a-token\n")
        wanted = {"proxy_networks": "10.1.0.0/16, ::1/128", **settings}
        self.process_tokens = ProcessTokens()
        found = load_settings(
            GatewaySettings,
            auth_token_file=tokens,
            proxy_user_header="X-Forwarded-Email",
            proxy_groups_header="X-Forwarded-Groups",
            proxy_users_file=self.file,
            **wanted,
        )
        self.users = ProxyUsers(found, self.process_tokens)
        self.sessions = Sessions(found, self.users)
        self.tokens = TokenCheck(tokens, b"key", self.process_tokens)

    def request(self, method: str = "GET", peer: str = "10.1.2.3", **headers: str) -> Request:
        sent = {"host": "dubs.example", "sec-fetch-site": "same-origin", **headers}
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()]
        scope = {"type": "http", "method": method, "path": "/v1/actors", "headers": pairs, "state": {PEER: peer}}
        return Request(scope)

    def user(self, **sent: str) -> ProxyUser:
        return self.users.user(self.request(**sent))


def test_user_is_the_caller(tmp_path: Path) -> None:
    """A user, and a member of a group, works for the tenant of the file; the audit log gets a fingerprint of the name."""
    door = Door(tmp_path)
    found = {}
    for name, groups in {"Ada@example.com": "", "ben@example.com": "staff, dubbing", "zoë@example.com": "DUBBING"}.items():
        sent = door.request(x_forwarded_email=name, x_forwarded_groups=groups, authorization="Basic of-the-proxy")
        caller = door.tokens.check(door.sessions.authorization(sent))
        found[caller.user] = caller.tenant
        assert len(caller.fingerprint) == 16
    assert found == {"Ada@example.com": "default", "ben@example.com": "acme", "zoë@example.com": "acme"}
    same = [
        door.tokens.check(door.process_tokens.of("default", name)).fingerprint
        for name in ("ada@example.com", "ADA@example.com", "ben")
    ]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("peer", ["10.2.0.1", "192.0.2.1", "", "unix", "::2"])
def test_header_from_elsewhere_is_ignored(tmp_path: Path, peer: str) -> None:
    """A request that does not come from the proxy names no user, whatever its headers say of where it comes from."""
    door = Door(tmp_path)
    sent = door.request(peer=peer, x_forwarded_email="ada@example.com", x_forwarded_for="10.1.2.3")
    assert (door.users.user(sent), door.sessions.authorization(sent), door.sessions.refusal(sent)) == (ProxyUser(), "", "")
    for known in ("10.1.2.3", "::ffff:10.1.2.3", "::1"):
        assert door.user(peer=known, x_forwarded_email="ada@example.com").authorization


def test_secret_of_the_proxy(tmp_path: Path) -> None:
    """With a secret in the settings, a request without it names no user; with networks too, both must hold."""
    for networks in ("", "10.1.0.0/16"):
        door = Door(tmp_path, proxy_networks=networks, proxy_secret_file=tmp_path / "secret")
        ada = {"x_forwarded_email": "ada@example.com"}
        assert door.user(**ada, x_dubstage_proxy_secret=SECRET).authorization
        for wrong in ("", SECRET[:-1], f"{SECRET}é"):
            assert door.user(**ada, x_dubstage_proxy_secret=wrong) == ProxyUser()
        assert bool(door.user(**ada, peer="192.0.2.1", x_dubstage_proxy_secret=SECRET).name) is (networks == "")
    (tmp_path / "secret").write_text("short")
    with pytest.raises(InvalidRequestError, match="has 5 bytes: give 16 or more"):
        ProxyUsers(load_settings(GatewaySettings, **door_settings(tmp_path)), ProcessTokens())


def door_settings(folder: Path) -> dict[str, Any]:
    files = {f"{name}_file": folder / file for name, file in {"auth_token": "tokens", "proxy_users": "users"}.items()}
    return {**files, "proxy_user_header": "X-User", "proxy_secret_file": folder / "secret"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eve@example.com", "eve@example.com is no user of this gateway"),
        ("", "names no user"),
        ("@Dubbing", "names no user"),
        ("a" * 201, "names no user"),
    ],
)
def test_unknown_users_are_refused(tmp_path: Path, name: str, said: str) -> None:
    door = Door(tmp_path)
    sent = door.request(x_forwarded_email=name, cookie="dubstage-0=YS10b2tlbg")
    assert said in door.sessions.refusal(sent)
    assert (door.sessions.authorization(sent), door.users.user(sent).authorization) == ("", "")


@pytest.mark.parametrize(
    ("method", "site"), [("POST", "cross-site"), ("POST", "same-site"), ("POST", "none"), ("GET", "cross-site")]
)
def test_other_pages_cannot_use_the_session(tmp_path: Path, method: str, site: str) -> None:
    """A page of another origin, whose requests the proxy signs in too, calls nothing (CSRF)."""
    door = Door(tmp_path)
    sent = {"x_forwarded_email": "ada@example.com", "sec-fetch-site": site}
    assert door.sessions.authorization(door.request(method, **sent)) == ""
    assert door.sessions.authorization(door.request(method, **{**sent, "sec-fetch-site": "same-origin"})) != ""
    evil = door.request("POST", **{**sent, "origin": "https://evil.example"})
    assert "a page of 'https://evil.example' may not call" in door.sessions.refusal(evil)


def test_changed_users_count_at_once(tmp_path: Path) -> None:
    """A removed user is refused at the next request, and all are while the file cannot be read."""
    door = Door(tmp_path)
    assert door.user(x_forwarded_email="ada@example.com").authorization
    door.file.write_text("# nobody else\n\ndefault ben@example.com\n")
    assert "no user of this gateway" in door.user(x_forwarded_email="ada@example.com").refusal
    assert door.user(x_forwarded_email="ben@example.com").authorization
    door.file.write_text("default\n")
    assert door.user(x_forwarded_email="ben@example.com").refusal
    door.file.unlink()
    assert door.user(x_forwarded_email="ben@example.com").refusal


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("default\n", "line 1 of the file of users .* write TENANT USER or TENANT @GROUP"),
        ("Acme ada\n", "line 1 .* write TENANT USER"),
        ("acme @\n", "line 1 .* write TENANT USER"),
        ("acme ada\nbeta Ada\n", "line 2 .* gives Ada a second tenant"),
        (b"\xff\xfe", "cannot read the file of users"),
    ],
)
def test_wrong_files_of_users_are_told(tmp_path: Path, content: str | bytes, said: str) -> None:
    file = tmp_path / "users"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidRequestError, match=said) as caught:
        read_users(file)
    assert caught.value.field == "DUBSTAGE_PROXY_USERS_FILE"


@pytest.mark.parametrize("left_out", ["auth_token_file", "proxy_users_file", "proxy_secret_file"])
def test_settings_come_together(tmp_path: Path, left_out: str) -> None:
    """Without tokens, without a file of users, or without a sign of the proxy, the header is refused at the start."""
    Door(tmp_path)
    given = {name: value for name, value in door_settings(tmp_path).items() if name != left_out}
    with pytest.raises(InvalidRequestError, match=f"proxy_user_header needs .*{left_out}"):
        load_settings(GatewaySettings, **given)


def test_passes_of_others_are_refused(tmp_path: Path) -> None:
    """No other process makes a pass, and a server without a proxy takes none."""
    door = Door(tmp_path)
    good = door.process_tokens.of("default", "ada")
    for wrong in (ProcessTokens().of("default", "ada"), f"{good[:-1]}{'0' if good[-1] != '0' else '1'}", "Process ", "Process x.é"):
        with pytest.raises(UnauthenticatedError):
            door.tokens.check(wrong)
    with pytest.raises(UnauthenticatedError, match="a bearer token is required"):
        TokenCheck(tmp_path / "tokens", b"key").check(good)
