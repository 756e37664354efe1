"""Who calls over HTTP, known before the body of a request is read, and what one caller may take of what all callers share."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Final, TypeVar

from services.common.errors import OverloadedError, UnauthenticatedError
from services.common.server.auth import TokenCheck

MOST_WRONG: Final = 20
"""Wrong tokens of one client address that are checked at once."""
WRONG_EVERY_S: Final = 1.0
"""Seconds after which a client address may send a further wrong token."""
_KEPT: Final = 4096
"""Most client addresses with wrong tokens, and most tokens that were right, which are kept."""
_IPV6_SUBSCRIBER: Final = 64
"""Bits of an IPv6 address that all addresses of one subscriber share."""
_BEARER: Final = "bearer "

Value = TypeVar("Value")
Key = TypeVar("Key")


def host_key(host: str) -> str:
    """Return what stands for a client address: the address, or the /64 network of an IPv6 address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> _IPV6_SUBSCRIBER << _IPV6_SUBSCRIBER)}/{_IPV6_SUBSCRIBER}"


class Shares:
    """An amount that all callers share, and of which one caller may take a part. Used from one event loop.

    Args:
        most: amount for all callers together.
        most_of_caller: amount for one caller.
        what: names the amount in refusals, such as `bytes of unfinished bodies`.
    """

    def __init__(self, most: int, most_of_caller: int, what: str) -> None:
        self._most = most
        self._most_of_caller = most_of_caller
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, caller: str, amount: int = 1) -> Iterator[None]:
        """Take a part for a caller while the block runs.

        Raises:
            OverloadedError: the caller, or all callers together, would have more than they may have.
        """
        if self._taken[caller] + amount > self._most_of_caller or self._taken.total() + amount > self._most:
            if not self._taken[caller]:
                del self._taken[caller]
            raise OverloadedError(
                f"the gateway takes {self._most} {self._what}, and {self._most_of_caller} of one caller: try again later"
            )
        self._taken[caller] += amount
        try:
            yield
        finally:
            self._taken[caller] -= amount
            if not self._taken[caller]:
                del self._taken[caller]


class HttpCallers:
    """Checks the tokens of HTTP requests by their heads, and slows down client addresses that try tokens.

    From a client address with too many wrong tokens, only tokens are accepted that were right from this address before. So honest
    callers behind the same address go on.

    Args:
        tokens: tokens that the gateway accepts.
        clock: returns seconds that never go back.
    """

    def __init__(self, tokens: TokenCheck, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # Client address -> wrong tokens that count, and the instant at which they were counted.
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()
        # Digests of client addresses with tokens that were right.
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def check(self, host: str, authorization: str) -> str:
        """Return what stands for the caller of a request: the tenant; without tokens, the client address.

        Args:
            host: client address.
            authorization: value of `authorization`; empty: none.

        Raises:
            UnauthenticatedError: there is no token, or a wrong one.
            OverloadedError: too many wrong tokens came from the client address.
        """
        if not (authorization.isascii() and authorization.isprintable()):
            raise UnauthenticatedError(
                "authorization: the value is not plain ASCII: send `Authorization: Bearer TOKEN`", field="authorization"
            )
        host = host_key(host)
        if not self._tokens.required:
            return f"address {host}"
        if not authorization.lower().startswith(_BEARER):
            # Such a call guesses no bearer token: it has no token, or the random one of this process.
            return f"tenant {self._tokens.check(authorization).tenant}"
        digest = hmac.digest(self._key, f"{host} {authorization}".encode(), "sha256")
        wrong = self._wrong_of(host)
        if wrong >= MOST_WRONG and digest not in self._right:
            raise OverloadedError(
                f"{MOST_WRONG} wrong tokens came from your address: try again later",
                retry_after_s=max(1.0, (wrong - MOST_WRONG + 1) * WRONG_EVERY_S),
            )
        try:
            caller = self._tokens.check(authorization)
        except UnauthenticatedError:
            _keep(self._wrong, host, (wrong + 1, self._clock()))
            self._right.pop(digest, None)
            raise
        _keep(self._right, digest, None)
        return f"tenant {caller.tenant}"

    def _wrong_of(self, host: str) -> float:
        wrong, at = self._wrong.get(host, (0.0, 0.0))
        return max(0.0, wrong - (self._clock() - at) / WRONG_EVERY_S) if wrong else 0.0


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
