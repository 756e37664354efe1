from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from services.common.errors import InvalidRequestError, UnauthenticatedError
from services.common.server.auth import TokenCheck, read_tokens
from services.common.server.call_context import (
    Caller,
    acting_for,
    current_caller,
    fingerprint_of,
    is_tenant,
    named_by,
    tenant_metadata,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_token_lines_and_default_tenant(file: Path) -> None:
    """A line gives a token to a tenant and a token alone belongs to the default tenant."""
    file.write_text("# studio\n\nplain-token\nacme  token-one\n acme token-two \nbeta-2 token-three\n")
    assert read_tokens(file) == {
        "plain-token": "default",
        "token-one": "acme",
        "token-two": "acme",
        "token-three": "beta-2",
    }


def test_a_check_says_who_calls(file: Path) -> None:
    file.write_text("plain-token\nacme token-one\n")
    key = b"secret of the installation"
    check = TokenCheck(file, key)
    assert check.check("Bearer plain-token") == Caller("default", fingerprint_of("plain-token", key))
    assert check.check("bearer token-one") == Caller("acme", fingerprint_of("token-one", key))
    for wrong in ("", "Bearer acme token-one", "Bearer acme", "token-one"):
        with pytest.raises(UnauthenticatedError):
            check.check(wrong)
    assert TokenCheck(None).check("Bearer anything") == Caller("default", "")


def test_fingerprint_hides_the_token(file: Path) -> None:
    """A fingerprint tells tokens apart and shows no guess to be right."""
    file.write_text("token-one\ntoken-two\n")
    one, other = TokenCheck(file, b"one key"), TokenCheck(file, b"another key")
    found = [check.check(f"Bearer {token}").fingerprint for check in (one, other) for token in ("token-one", "token-two")]
    assert len(set(found)) == 4
    assert found[0] == one.check("Bearer token-one").fingerprint
    assert hashlib.sha256(b"token-one").hexdigest()[:16] not in found
    # A server that records no fingerprints needs no key.
    assert TokenCheck(file).check("Bearer token-one").fingerprint != TokenCheck(file).check("Bearer token-one").fingerprint


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("Acme token", "names no tenant"),
        ("-acme token", "names no tenant"),
        (f"{'a' * 32} token", "names no tenant"),
        ("acme beta token", "names no tenant"),
        ("acme token\nbeta token", "gives a token to a second tenant"),
        ("acme tökén", "not plain ASCII"),
        ("acme\ttoken", "not plain ASCII"),
    ],
)
def test_file_without_tenants_refused(lines: str, says: str, file: Path) -> None:
    """A file that names no tenants is refused and shows no token."""
    file.write_text(lines)
    with pytest.raises(InvalidRequestError, match=says) as caught:
        read_tokens(file)
    assert "token\n" not in caught.value.message.replace("the token file", "")


def test_client_sends_first_token(file: Path) -> None:
    """The first token of a file is the one that a client sends."""
    file.write_text("acme token-one\nplain-token\n")
    assert next(iter(read_tokens(file))) == "token-one"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("a", True), ("a-1", True), ("a" * 31, True), ("a" * 32, False), ("", False), ("a-", False), ("a_b", False), ("..", False)],
)
def test_names_of_tenants_are_short_and_plain(name: str, is_one: bool) -> None:
    assert is_tenant(name) is is_one


def test_acting_for_names_tenant() -> None:
    """Work acts for a tenant and names it to stages."""
    assert tenant_metadata() == ()
    with acting_for("acme"):
        assert current_caller() == Caller("acme")
        assert tenant_metadata() == (("dubstage-tenant", "acme"),)
        with acting_for("beta"):
            assert current_caller() == Caller("beta")
        assert current_caller() == Caller("acme")
    assert current_caller() == Caller()


def test_only_default_tenant_acts_for() -> None:
    """Only a caller of the default tenant speaks for another."""
    assert named_by(Caller("default", "f"), "acme") == Caller("acme", "f")
    assert named_by(Caller("acme", "f"), "") == named_by(Caller("acme", "f"), "acme") == Caller("acme", "f")
    for caller, tenant in ((Caller("beta"), "acme"), (Caller("beta"), "default"), (Caller("default"), "../acme")):
        with pytest.raises(UnauthenticatedError):
            named_by(caller, tenant)
