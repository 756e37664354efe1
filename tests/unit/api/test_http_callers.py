"""Tokens that are tried, and what one caller may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api import http_callers
from gateway.api.http_callers import MOST_WRONG, HttpCallers, Shares, host_key
from services.common.errors import OverloadedError, UnauthenticatedError
from services.common.server.auth import TokenCheck

RIGHT = "Bearer a-token-of-some-length"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callers(tmp_path: Path, clock: Clock) -> HttpCallers:
    (tmp_path / "tokens").write_text("acme a-token-of-some-length\nanother-token\n")
    return HttpCallers(TokenCheck(tmp_path / "tokens"), clock)


def guess(callers: HttpCallers, host: str, number: int) -> str:
    try:
        return callers.check(host, f"Bearer wrong-{number}")
    except (UnauthenticatedError, OverloadedError) as error:
        return error.reason


def test_wrong_tokens_of_address_count(callers: HttpCallers, clock: Clock) -> None:
    """An address gets a further guess in each second; other addresses are not concerned."""
    found = [guess(callers, "1.2.3.4", number) for number in range(300)]
    assert [found.count("UNAUTHENTICATED"), found.count("OVERLOADED")] == [MOST_WRONG, 300 - MOST_WRONG]
    assert guess(callers, "1.2.3.5", 0) == "UNAUTHENTICATED"
    clock.now += 3
    assert [guess(callers, "1.2.3.4", number) for number in range(4)] == [*["UNAUTHENTICATED"] * 3, "OVERLOADED"]


def test_known_callers_go_on(callers: HttpCallers, clock: Clock) -> None:
    """A caller who was let in before keeps his token from an address with guesses; a new token waits."""
    assert callers.check("1.2.3.4", RIGHT) == "tenant acme"
    for number in range(300):
        guess(callers, "1.2.3.4", number)
    assert callers.check("1.2.3.4", RIGHT) == "tenant acme"
    with pytest.raises(OverloadedError):
        callers.check("1.2.3.4", "Bearer another-token")
    clock.now += 2
    assert callers.check("1.2.3.4", "Bearer another-token") == "tenant default"


def test_calls_without_token_are_no_guesses(callers: HttpCallers) -> None:
    for _ in range(100):
        with pytest.raises(UnauthenticatedError):
            callers.check("1.2.3.4", "")
    assert callers.check("1.2.3.4", RIGHT) == "tenant acme"


def test_kept_addresses_are_bounded(callers: HttpCallers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_callers, "_KEPT", 10)
    for number in range(100):
        guess(callers, f"10.0.0.{number}", 0)
    assert len(callers._wrong) == 10


def test_address_without_tokens_is_the_caller() -> None:
    assert HttpCallers(TokenCheck(None)).check("1.2.3.4", "") == "address 1.2.3.4"


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_subscriber_is_one_host(host: str, key: str) -> None:
    assert host_key(host) == key


def test_shares_of_all_and_one() -> None:
    shares = Shares(10, 6, "things")
    with shares.taken("a", 6), shares.taken("b", 4):
        for caller in ("a", "b", "c"):
            with pytest.raises(OverloadedError), shares.taken(caller):
                pass
    with shares.taken("b", 6):
        pass
