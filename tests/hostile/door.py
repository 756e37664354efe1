"""The door of the campaign: raw HTTP to a gateway that asks for tokens, and what must hold after each hostile action.

Each case has a tenant and a client address for itself, so that no limit that one case meets is another case's fault: the addresses
are those of the loopback network, 127.1.0.1 and on.
"""

import http.client
import itertools
import json
import queue
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from gateway.settings import TENANTS_FOLDER
from services.common.server.health_check import check
from tests.hostile.case import Fault, Outcome
from tests.hostile.machine import MACHINE
from tests.hostile.servers import DOOR, HONEST, HTTP, TENANTS, Servers, token_of

ANSWER_S: Final = 20.0
"""Seconds in which the door answers a request that is whole, on a free machine."""
HEALTH_S: Final = 3.0
"""Seconds in which the door answers an honest caller's question for its health, beside hostile callers."""
CLOSED_S: Final = 10.0
"""Seconds in which the door has closed a connection that its client has closed, and has freed what the connection held."""
ANSWERED_HTTP: Final = frozenset({"OK", "closed", *(f"HTTP {number}" for number in range(400, 500) if number != 499)})
"""How the door may answer a hostile request: with success, with a refusal, or by closing the connection."""
BAD_TEXT: Final = ("Traceback (most recent call last)", "object at 0x", "Internal Server Error")
_MOST_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Visitor:
    """One case's caller.

    Attributes:
        mark: number that no other case of the campaign has, for names.
        address: client address of the case's connections.
        tenant: tenant of the case's calls.
        media: media folder of the tenant.
    """

    mark: int
    address: str
    tenant: str
    media: Path

    @property
    def other_address(self) -> str:
        """A second client address of the case, from which no hostile request comes."""
        first, second, rest = self.address.split(".", 2)
        return f"{first}.{int(second) + 128}.{rest}"

    @property
    def token(self) -> str:
        """The tenant's token."""
        return token_of(self.tenant)

    @property
    def uploads(self) -> Path:
        """Folder of the tenant's uploads."""
        return self.media / "uploads"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a request.

    Attributes:
        status: status of HTTP; 0: the connection was closed without an answer.
        headers: headers; names in lower case.
        body: body, at most a MiB of it.
        without_body: whether the request was HEAD, whose answers have no body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    without_body: bool = False

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Door:
    """Connections to the door, and the checks behind each case.

    Args:
        servers: the running servers.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._numbers = itertools.count()
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for tenant in TENANTS:
            self._free.put(tenant)

    @contextmanager
    def visitor(self) -> Iterator[Visitor]:
        """Give a tenant and a client address to one case. Waits while other cases have all tenants."""
        tenant = self._free.get()
        try:
            number = next(self._numbers) + 1
            address = f"127.{1 + (number >> 16) % 120}.{number >> 8 & 255}.{number & 255}"
            yield Visitor(number, address, tenant, self.media_of(tenant))
        finally:
            self._free.put(tenant)

    def stock(self, files: Sequence[Path]) -> None:
        """Put files into the media folders of all tenants, and call the door once as each tenant, so that all of them are open."""
        for tenant in (HONEST, *TENANTS):
            for file in files:
                shutil.copy(file, self.media_of(tenant))
            for path in ("/v1/actors", "/v1/operations", "/v1/batches", "/v1/uploads"):
                answer = self.ask("127.0.0.1", "GET", path, token=token_of(tenant))
                if answer.status != 200:
                    raise RuntimeError(f"the door does not serve {tenant}: HTTP {answer.status} {answer.body[:300]!r}")

    def media_of(self, tenant: str) -> Path:
        """Return the media folder of a tenant."""
        return self._servers.door / "media" / TENANTS_FOLDER / tenant

    @property
    def cookie(self) -> str:
        """Name of the pages' cookie."""
        return f"dubstage-{self._servers.addresses[HTTP].rpartition(':')[2]}"

    def connect(self, address: str) -> socket.socket:
        """Return a new connection from a client address."""
        host, _, port = self._servers.addresses[HTTP].rpartition(":")
        return socket.create_connection((host, int(port)), timeout=MACHINE.bound(ANSWER_S), source_address=(address, 0))

    def ask(self, address: str, verb: str, path: str, body: bytes = b"", *, token: str = "", headers: Sequence[str] = ()) -> Answer:
        """Send one whole request on a connection of its own, and return the answer.

        Raises:
            TimeoutError: there is no answer in time.
        """
        with self.connect(address) as connection:
            connection.sendall(head(verb, path, *headers, f"Content-Length: {len(body)}", token=token) + body)
            return answer_of(connection, verb)

    def call(self, visitor: Visitor, verb: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a call that must succeed. A busy gateway is asked again, as it says, within a bound.

        Raises:
            RuntimeError: the call was refused for another reason, or for too long.
        """
        body = b"" if fields is None else json.dumps(fields).encode()
        end = time.monotonic() + MACHINE.bound(ANSWER_S)
        while True:
            answer = self.ask(visitor.address, verb, path, body, token=visitor.token)
            if answer.status == 200:
                return answer.json()
            if answer.status != 429 or time.monotonic() > end:
                raise RuntimeError(f"{verb} {path}: HTTP {answer.status} {answer.body[:300]!r}")
            time.sleep(min(2.0, float(answer.headers.get("retry-after", "1"))))

    def faults_after(self, visitor: Visitor) -> list[Fault]:
        """Check that the door serves an honest caller, and has freed what the case's connections held."""
        return [*self.health_faults(), *self._socket_faults(visitor)]

    def health_faults(self) -> list[Fault]:
        """Check that an honest caller is told over HTTP and over gRPC, soon, that the door serves."""
        faults, begun = [], time.monotonic()
        try:
            answer = self.ask("127.0.0.1", "GET", "/healthz", token=token_of(HONEST))
            if answer.status != 200:
                faults.append(Fault("code", f"health over HTTP: {answer.status} {answer.body[:200]!r}"))
        except OSError as problem:
            faults.append(Fault("hang", f"health over HTTP: {problem}"))
        seconds = time.monotonic() - begun
        if not faults and seconds > MACHINE.bound(HEALTH_S, since=begun - 5.0):
            slow = f"the machine: {MACHINE.slowness():.1f} times slower"
            faults.append(Fault("hang", f"health over HTTP took {seconds:.1f} s ({slow})"))
        try:
            found = check(self._servers.addresses[DOOR], token=token_of(HONEST), timeout_s=MACHINE.bound(ANSWER_S))
        except grpc.RpcError as error:
            found = f"{error.code().name} {error.details()}"
        if found != "SERVING":
            faults.append(Fault("hang", f"health over gRPC: {found}"))
        return faults

    def _socket_faults(self, visitor: Visitor) -> list[Fault]:
        begun = time.monotonic()
        while left := self._servers.sockets_of(visitor.address):
            if time.monotonic() - begun > MACHINE.bound(CLOSED_S, since=begun):
                return [Fault("leftover", f"{left} connections whose client has closed them are still open")]
            time.sleep(0.05)
        return []

    def remove_upload(self, visitor: Visitor, name: str) -> list[Fault]:
        """Remove an upload, whole or not, and check that nothing of the upload stays."""
        begun = time.monotonic()
        while True:
            answer = self.ask(visitor.address, "DELETE", f"/v1/uploads/{name}", token=visitor.token)
            if answer.status in (200, 404):
                break
            if time.monotonic() - begun > MACHINE.bound(CLOSED_S, since=begun):
                return [Fault("leftover", f"the upload {name} cannot be removed: HTTP {answer.status} {answer.body[:200]!r}")]
            time.sleep(0.1)
        left = [path.name for path in visitor.uploads.glob(f"*{name}*")] if visitor.uploads.is_dir() else []
        return [Fault("leftover", f"of a removed upload: {left}")] if left else []


def head(verb: str, path: str, *headers: str, token: str = "") -> bytes:
    """Return the head of a request."""
    own = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "Host: localhost", *own, *headers, "", ""]).encode("latin-1")


def answer_of(connection: socket.socket, verb: str = "GET") -> Answer:
    """Read one answer from a connection.

    Raises:
        TimeoutError: there is no answer in time.
    """
    response = http.client.HTTPResponse(connection, method=verb)
    try:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read(_MOST_READ), without_body=verb == "HEAD")
    except (http.client.HTTPException, ConnectionError):
        return Answer(0, {}, b"")
    finally:
        response.close()


def break_off(connection: socket.socket) -> None:
    """Close a connection with a reset, as the system does for a client that is killed."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def judged_answer(answer: Answer, own_places: Sequence[str], *, allowed: Sequence[int] = ()) -> Outcome:
    """Return the outcome of an answer: its status, and what is wrong with the answer.

    Args:
        answer: the answer.
        own_places: texts of the server's own files, which no answer holds.
        allowed: statuses that the answer must have; empty: any but those of a fault of the server.
    """
    if not answer.status:
        return Outcome("closed")
    said = answer.body[:20_000].decode("utf-8", "replace")
    code = "OK" if answer.status < 400 else f"HTTP {answer.status}"
    faults = [Fault("path", f"{place} in: {said[:300]}") for place in own_places if place in said]
    faults += [Fault("crash", said[:500]) for text in BAD_TEXT if text in said][:1]
    if answer.status >= 500 or answer.status == 499 or (allowed and answer.status not in allowed):
        faults.append(Fault("code", f"HTTP {answer.status}, not {' or '.join(map(str, allowed)) or 'a refusal'}: {said[:300]}"))
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    if answer.status >= 400 and is_json and not answer.without_body:
        faults += _refusal_faults(answer, said)
    return Outcome(code, said[:500], tuple(faults))


def _refusal_faults(answer: Answer, said: str) -> list[Fault]:
    """Return what is wrong with the JSON of a refusal."""
    try:
        error = answer.json()["error"]
        named = bool(error["message"]) and error["code"] == answer.status
        details = error["details"]
    except (ValueError, KeyError, TypeError):
        return [Fault("message", f"HTTP {answer.status} without an error in its JSON: {said[:300]}")]
    faults = [] if named else [Fault("message", f"an error without a message, or of another code: {said[:300]}")]
    # Addresses, methods and ranges that do not exist are refused before there is a call with a reason.
    if answer.status in (400, 401, 413, 429) and not any(detail.get("reason") for detail in details):
        faults.append(Fault("unnamed", f"HTTP {answer.status} without a reason: {said[:300]}"))
    reasons = {detail.get("reason") for detail in details}
    if reasons & {"UNEXPECTED", "CONTRACT_BROKEN"}:
        faults.append(Fault("unnamed", said[:300]))
    return faults
