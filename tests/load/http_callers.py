"""Callers over HTTP that are broken or hostile beside honest ones, and what the honest ones see."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from tests.hostile.door import Answer, answer_of, break_off, head
from tests.hostile.machine import MACHINE
from tests.load.callers import Tenant

FILE: Final = "load.bin"
FILE_BYTES: Final = 6_000_000
UPLOAD_BYTES: Final = 1_500_000
SOCKET_S: Final = 60.0
"""Seconds after which a caller gives an answer up."""
HEALTH_EVERY_S: Final = 0.5
HEALTH_S: Final = 3.0
"""Seconds in which the gateway answers an honest caller's question for its health, on a free machine."""
_ANSWERS: Final = frozenset({200, 206, 400, 401, 404, 409, 413, 416, 429, 431})
"""Statuses that a hostile request may have."""


@dataclass
class Seen:
    """What the callers of a run saw.

    Attributes:
        actions: number of actions by name.
        statuses: number of answers by status; 0: the connection was closed without an answer.
        errors: answers that must not come.
        health_s: seconds of each answer to an honest caller about the health.
        slowness: how many times slower than a free machine the machine was at worst.
        longest_s: longest time in which an honest call of a tenant did not succeed, by tenant, seconds.
    """

    actions: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    slowness: float = 1.0
    longest_s: dict[str, float] = field(default_factory=dict)


class HttpLoad:
    """Threads of callers at one address.

    Args:
        port: port of HTTP on 127.0.0.1.
        tenants: the honest and broken tenants.
        operation: name of an operation of each tenant that has ended, by tenant.
        seed: seed of the callers.
    """

    def __init__(self, port: int, tenants: Sequence[Tenant], operation: Mapping[str, str], seed: int) -> None:
        self.seen = Seen()
        self._port, self._tenants, self._operation, self._seed = port, tenants, operation, seed
        self._over = threading.Event()
        self._turn = threading.Lock()

    def run(self, seconds: float) -> None:
        """Call for so many seconds, and wait for the last answers."""
        threads = [threading.Thread(target=self._ask_for_health)]
        for number, tenant in enumerate(self._tenants):
            threads.append(threading.Thread(target=self._stay_in, args=(tenant,)))
            address = f"127.2.0.{number + 1}"
            acts = (self._download, self._range, self._events, self._upload, self._body)
            threads += [threading.Thread(target=self._act, args=(act, address, tenant)) for act in acts]
        stranger = Tenant("stranger", "no-token-of-this-gateway", 0)
        for act in (self._guess, self._hold, self._body):
            threads.append(threading.Thread(target=self._act, args=(act, "127.3.0.1", stranger)))
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join(2 * SOCKET_S)

    def _act(self, act: Callable[[str, Tenant, random.Random], None], address: str, tenant: Tenant) -> None:
        own = random.Random(f"{self._seed} {act.__name__} {tenant.name}")
        while not self._over.wait(own.random() / 5):
            try:
                act(address, tenant, own)
            except TimeoutError as problem:
                self._wrong(f"{act.__name__.strip('_')} of {tenant.name}: no answer within {SOCKET_S:g} s ({problem})")
            except OSError:
                # The gateway closes connections that it has no room for.
                self._note(Answer(0, {}, b""), act.__name__)
            with self._turn:
                name = f"{act.__name__.strip('_')} {tenant.name}"
                self.seen.actions[name] = self.seen.actions.get(name, 0) + 1

    def _connect(self, address: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=SOCKET_S, source_address=(address, 0))

    def _note(self, answer: Answer, what: str) -> None:
        with self._turn:
            self.seen.statuses[answer.status] = self.seen.statuses.get(answer.status, 0) + 1
        if answer.status and answer.status not in _ANSWERS:
            self._wrong(f"{what}: HTTP {answer.status} {answer.body[:200]!r}")

    def _wrong(self, text: str) -> None:
        with self._turn:
            self.seen.errors.append(text)

    # Honest callers

    def _ask_for_health(self) -> None:
        tenant = self._tenants[0]
        while not self._over.wait(HEALTH_EVERY_S):
            begun, seen = time.monotonic(), "HTTP 200"
            try:
                status, _ = call(self._port, tenant.token, "GET", "/healthz")
                seen = f"HTTP {status}"
            except OSError as problem:
                seen = str(problem)
            seconds = time.monotonic() - begun
            slowness = MACHINE.slowness(since=begun - 5.0)
            self.seen.health_s.append(seconds)
            self.seen.slowness = max(self.seen.slowness, slowness)
            # A busy machine is no fault of the gateway, which answers 504 after ANSWERS_S by itself.
            if seconds > HEALTH_S * slowness or seen not in ("HTTP 200", "HTTP 504"):
                self._wrong(f"health: {seen} after {seconds:.1f} s; the machine is {slowness:.1f} times slower than a free one")

    def _stay_in(self, tenant: Tenant) -> None:
        """Call as an honest caller of a tenant, and note the longest time without an answer."""
        last = time.monotonic()
        while not self._over.wait(HEALTH_EVERY_S):
            try:
                status, _ = call(self._port, tenant.token, "GET", "/v1/uploads")
            except OSError:
                status = 0
            now = time.monotonic()
            with self._turn:
                self.seen.longest_s[tenant.name] = max(self.seen.longest_s.get(tenant.name, 0.0), now - last)
            if status == 200:
                last = now

    # Broken callers

    def _download(self, address: str, tenant: Tenant, own: random.Random) -> None:
        with self._connect(address) as connection:
            connection.sendall(head("GET", f"/v1/files/uploads/{FILE}", token=tenant.token))
            if own.random() < 0.6:
                connection.recv(own.choice((1, 100, 60_000)))
                break_off(connection)
                return
            self._note(answer_of(connection), "download")

    def _range(self, address: str, tenant: Tenant, own: random.Random) -> None:
        first = own.randrange(FILE_BYTES + 1000)
        with self._connect(address) as connection:
            told = f"Range: bytes={first}-{first + own.randrange(500_000)}"
            connection.sendall(head("GET", f"/v1/files/uploads/{FILE}", told, token=tenant.token))
            self._note(answer_of(connection), "range")

    def _events(self, address: str, tenant: Tenant, own: random.Random) -> None:
        path = own.choice((f"/v1/{self._operation[tenant.name]}", "/v1/batches/none:watch"))
        with self._connect(address) as connection:
            connection.sendall(head("GET", path, "Accept: text/event-stream", token=tenant.token))
            if own.random() < 0.5:
                connection.recv(own.choice((1, 200)))
                break_off(connection)
                return
            self._note(answer_of(connection), "events")

    def _upload(self, address: str, tenant: Tenant, own: random.Random) -> None:
        data = own.randbytes(UPLOAD_BYTES)
        name = f"load-{own.randrange(20)}.bin"
        with self._connect(address) as connection:
            connection.sendall(head("PUT", f"/v1/uploads/{name}", f"Content-Length: {len(data)}", token=tenant.token))
            connection.sendall(data[: own.randrange(len(data) + 1)])
            if own.random() < 0.7:
                break_off(connection)
                return
            connection.sendall(b"")
            connection.settimeout(1.0)
            try:
                self._note(answer_of(connection, "PUT"), "upload")
            except TimeoutError:
                break_off(connection)

    def _body(self, address: str, tenant: Tenant, own: random.Random) -> None:
        body = own.choice(
            (b'{"rows":' + b"[" * 100_000, b"{" * 10, own.randbytes(200_000), b'{"rows":[' + b"{}," * 60_000 + b"{}]}")
        )
        with self._connect(address) as connection:
            path = own.choice(("/v1/batches", "/v1/dubs:estimate", "/v1/webhooks"))
            connection.sendall(head("POST", path, f"Content-Length: {len(body)}", token=tenant.token) + body)
            self._note(answer_of(connection, "POST"), "body")

    # The stranger

    def _guess(self, address: str, tenant: Tenant, own: random.Random) -> None:
        with self._connect(address) as connection:
            connection.sendall(head("GET", "/v1/actors", token=f"guess-{own.random()}"))
            self._note(answer_of(connection), "wrong token")

    def _hold(self, address: str, tenant: Tenant, own: random.Random) -> None:
        held = [self._connect(address) for _ in range(own.choice((1, 20, 60)))]
        try:
            for connection in held:
                connection.sendall(own.choice((b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\x16\x03\x01")))
            self._over.wait(own.random() * 3)
        finally:
            for connection in held:
                break_off(connection)


def call(port: int, token: str, verb: str, path: str, fields: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Return status and JSON of a call from 127.0.0.1."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SOCKET_S)) as connection:
        body = None if fields is None else json.dumps(fields)
        connection.request(verb, path, body, {"Authorization": f"Bearer {token}"})
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())
