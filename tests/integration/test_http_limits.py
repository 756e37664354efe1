"""One caller over HTTP, hostile or broken, does not keep others from the gateway: calls, bodies, connections, events, tokens."""

import asyncio
import base64
import http.client
import json
import os
import random
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from dubstage.client import batch
from gateway.api import http_connections, rest, server, uploads
from gateway.safe_paths import open_regular
from services.common.server.health_check import check
from tests.contract.ports import free_port
from tests.integration.client_calls import until
from tests.integration.servers import LoopThread, RunningGateway, StartGateway
from tests.integration.test_access import Certificate, certificate  # noqa: F401  # a fixture
from tests.integration.test_rest import Caller
from tests.integration.videos import OTHER, Media

TOKEN, OTHER_TOKEN = "token-of-studio-one", "token-of-studio-two"
FILE = "large_download.bin"
SIZE = 3_000_000
MOST_STALL_S = 2.0
MOST_SMALL_STALL_S = 0.5
FLOOD_BYTES = 1 << 20
SOCKET = (
    *("Upgrade: websocket", "Connection: Upgrade"),
    *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: YWJjZGVmZ2hpamtsbW5vcA=="),
)
MIB = 1 << 20
LONGEST = 15 * MIB
HEADERS = (
    *("Authorization", "Cookie", "Host", "Origin", "Referer", "Sec-Fetch-Site", "Range", "If-Range", "Content-Range", "Accept"),
    *("Repr-Digest", "X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Email", "Content-Type", "Expect", "Content-Length"),
)
VALUES = (
    *(b"\xe9", b"Bearer \xe9", b"Bearer a\tb", b"[", b"http://[", b"bytes=-", b"sha-256=:\xff:", b"\xed\xa0\x80", b"%"),
    b"," * 900,
)


@dataclass(frozen=True)
class Door:
    gateway: RunningGateway
    call: Caller
    other: Caller
    loop: LoopThread

    def in_flight(self, rpc: str = "gateway.v1.MediaService/DownloadFile") -> float:
        """Calls of an RPC that run or wait in the gateway."""
        labels = {"stage": "gateway", "rpc": f"dubstage.{rpc}"}
        return self.gateway.server.metrics.registry.get_sample_value("dubstage_rpcs_in_flight", labels) or 0.0

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.call.port), timeout=30)

    def head(self, verb: str, path: str, *headers: str, token: str = TOKEN) -> bytes:
        lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", *([f"Authorization: Bearer {token}"] if token else []), *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def assert_serves(self) -> None:
        """HTTP and gRPC answer soon."""
        begun = time.monotonic()
        assert self.call("GET", "/healthz") == (200, {"status": "SERVING"})
        assert self.call("GET", "/v1/actors")[0] == 200
        with self.gateway.connect(token=TOKEN) as connection:
            batch.list_batches(connection)
        assert time.monotonic() - begun < 30


@pytest.fixture(scope="module")
def door(gateway_factory: StartGateway, loop_thread: Any, media: Media, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    port = free_port()
    (media.root / "uploads").mkdir(exist_ok=True)
    (media.root / "uploads" / FILE).write_bytes(random.Random(1).randbytes(SIZE))
    running = gateway_factory(http_port=port, tokens=[TOKEN, f"other {OTHER_TOKEN}"])
    yield Door(running, Caller(port, token=TOKEN), Caller(port, token=OTHER_TOKEN), loop_thread)
    loop_thread.run(running.server.drain(grace_s=0))
    (media.root / "uploads" / FILE).unlink()


def download(door: Door, chance: random.Random, headers: tuple[str, ...] = ()) -> int:
    """Ask for a file, leave at a random place, and return the number of bytes that came."""
    with door.connected() as connection:
        connection.sendall(door.head("GET", f"/v1/files/uploads/{FILE}", *headers))
        wanted = chance.choice([0, 1, 100, 70_000, 400_000, 10 * SIZE])
        received = 0
        while received < wanted and (data := connection.recv(1 << 16)):
            received += len(data)
            if b"\r\n\r\n" in data and (length := re.search(rb"content-length: (\d+)", data)):
                wanted = min(wanted, int(length[1]))
        if chance.random() < 0.5:
            # A client that is killed resets the connection.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return received


def many_downloads(door: Door, number: int) -> None:
    chance = random.Random(7)

    def one(seed: int) -> None:
        own = random.Random(seed)
        first = own.randrange(SIZE)
        part = own.choice(["", f"{first}-{own.randrange(first, SIZE)}", "9000000-", "-5"])
        download(door, own, (f"Range: bytes={part}",) if part else ())

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(one, [chance.randrange(1 << 30) for _ in range(number)]))


def test_downloads_free_calls(door: Door) -> None:
    """Downloads and ranges, broken off at any place or whole over one connection, leave no call behind."""
    many_downloads(door, 300)
    until(lambda: door.in_flight() == 0)
    door.assert_serves()
    with door.call.open("GET", f"/v1/files/uploads/{FILE}") as response:
        status, size = response.status, len(response.read())
    assert (status, size) == (200, SIZE)
    connection = http.client.HTTPConnection("127.0.0.1", door.call.port, timeout=30)
    for number in range(250):
        headers = {"Authorization": f"Bearer {TOKEN}", "Range": f"bytes={number}-{number + 9}"}
        verb, path = ("HEAD", "/healthz") if number % 2 else ("GET", f"/v1/files/uploads/{FILE}")
        connection.request(verb, path, headers=headers)
        with connection.getresponse() as response:
            assert response.status in (206, 405, 200)
            response.read()
    connection.close()
    until(lambda: door.in_flight() == 0)
    door.assert_serves()


def test_clients_that_leave_close_files(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose client leaves while the file is opened is closed too."""

    def opened_slowly(file: Path) -> int | None:
        time.sleep(0.05)
        return open_regular(file)

    monkeypatch.setattr(uploads, "open_regular", opened_slowly)
    for _ in range(40):
        with door.connected() as connection:
            connection.sendall(door.head("GET", f"/v1/files/uploads/{FILE}"))
            time.sleep(0.02)
    until(lambda: door.in_flight() == 0)
    handles = Path("/proc/self/fd")
    until(lambda: not [handle for handle in handles.iterdir() if os.path.realpath(handle).endswith(f"uploads/{FILE}")])


@pytest.mark.long
def test_thousands_of_downloads(door: Door) -> None:
    many_downloads(door, 4000)
    until(lambda: door.in_flight() == 0)
    door.assert_serves()


def test_clients_that_leave_end_calls(door: Door) -> None:
    """Events, and a call that waits, end in the gateway when the client is gone."""
    rpc = "gateway.v1.BatchService/WatchBatch"
    dub = {"footageUri": OTHER, "speechUri": "speech.wav", "outputUri": "left.mp4", "skipPersonalization": True}
    row = {"shotId": "a", "dub": dub}
    assert door.call("POST", "/v1/batches", {"batchId": "left", "rows": [row]})[0] == 200
    with ExitStack() as stack:
        watching = [stack.enter_context(door.connected()) for _ in range(10)]
        for one in watching:
            one.sendall(door.head("GET", "/v1/batches/left:watch"))
        assert all(one.recv(12) == b"HTTP/1.1 200" for one in watching)
    until(lambda: door.in_flight(rpc) == 0)
    door.assert_serves()
    door.call("POST", "/v1/batches/left:cancel", {})


def test_stuck_http_is_reported(start_gateway: StartGateway, loop_thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness and liveness fail while HTTP does not answer, and recover with HTTP."""
    monkeypatch.setattr(server, "HTTP_STUCK_S", 1.0)
    monkeypatch.setattr(rest, "ANSWERS_S", 0.5)
    running = start_gateway(http_port=free_port(), max_concurrent_rpcs=8, max_queued_rpcs=0)
    channel = running.server._rest._channel  # type: ignore[attr-defined]

    async def fill() -> list[Any]:
        """Begin as many calls as the channel takes, which do not end."""
        forms = (health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString)
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", *forms)
        calls = [watch(health_pb2.HealthCheckRequest()) for _ in range(8 + 128)]
        for call in calls:
            await call.read()
        return calls

    def seen() -> tuple[str, str]:
        return check(running.server.address), check(running.server.address, service="liveness")

    assert seen() == ("SERVING", "SERVING")
    calls = loop_thread.run(fill())
    until(lambda: seen() == ("NOT_SERVING", "NOT_SERVING"))

    async def free() -> None:
        for call in calls:
            call.cancel()

    loop_thread.run(free())
    until(lambda: seen() == ("SERVING", "SERVING"))


@contextmanager
def stall(loop: LoopThread) -> Iterator[Callable[[], float]]:
    """Measure the longest time for which the event loop of the gateway does not run, seconds.

    The clock is that of the process: a busy machine keeps the loop waiting too.
    """
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        last = time.process_time()
        while True:
            await asyncio.sleep(0.005)
            now = time.process_time()
            worst, last = max(worst, now - last), now

    task = asyncio.run_coroutine_threadsafe(watch(), loop._loop)
    try:
        yield lambda: worst
    finally:
        task.cancel()


def filled(begin: bytes, item: bytes, end: bytes, size: int = LONGEST) -> bytes:
    return begin + b",".join([item] * ((size - len(begin) - len(end)) // (len(item) + 1))) + end


HOSTILE = {
    "empty_boxes": ("/v1/dubs:estimate", lambda: filled(b'{"dub":{"boxes":[', b"{}", b"]}}")),
    "small_lists": ("/v1/dubs:estimate", lambda: filled(b'{"dub":{"boxes":', b"[]", b"}}", MIB // 4)),
    "numbers": ("/v1/batches", lambda: filled(b'{"rows":[', b"1e3", b"]}", 2 * MIB)),
    "names": ("/v1/batches", lambda: b"{" + b",".join(b'"%d":{}' % number for number in range(99_000)) + b"}"),
    "escapes": ("/v1/batches", lambda: b'{"batchId":"' + b"\\u00e9" * (LONGEST // 6 - 10) + b'"}'),
    "deep": ("/v1/batches", lambda: b'{"rows":' + b"[" * 190_000),
    "long_number": ("/v1/batches", lambda: b'{"workers":' + b"9" * (LONGEST - 20) + b"}"),
    "empty_rows": ("/v1/batches", lambda: filled(b'{"batchId":"hostile","validateOnly":true,"rows":[', b"{}", b"]}", 3 * 30_000)),
    "lines": (
        "/v1/dubs:estimate",
        lambda: filled(b'{"dub":{"lines":[', filled(b'{"boxes":[', b"{}", b"]}", 3 * 9_000), b"]}}", 3 * 62_000),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_stalls_nobody(door: Door, name: str) -> None:
    """No body keeps the event loop, and so health and leases, for two seconds; without a token, no body is read."""
    path, make = HOSTILE[name]
    body = make()
    with stall(door.loop) as worst:
        status, answer = Caller(door.call.port)("POST", path, body)
        assert status == 401
        status, answer = door.call("POST", path, body)
        assert status in (200, 400, 413), answer
    assert worst() < MOST_STALL_S


def test_refused_before_the_body(door: Door) -> None:
    """A request without a right token, or too large for its RPC, is refused before the server asks for its body."""
    for path in ("/v1/dubs:estimate", "/v1/batches", "/v1/webhooks"):
        with door.connected() as connection:
            connection.sendall(door.head("POST", path, f"Content-Length: {LONGEST}", "Expect: 100-continue", token=""))
            assert connection.recv(12) == b"HTTP/1.1 401"
    with door.connected() as connection:
        connection.sendall(door.head("POST", "/v1/webhooks", f"Content-Length: {MIB}"))
        assert connection.recv(12) == b"HTTP/1.1 413"
    for value in (b"Bearer \xe9", b"Bearer a\tb"):
        with door.connected() as connection:
            connection.sendall(b"GET /v1/actors HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + value + b"\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 401"


def test_unfinished_bodies_are_bounded(door: Door) -> None:
    """One tenant has two large bodies on the way; further ones are refused, and another tenant's go on."""
    with ExitStack() as stack:
        head = door.head("POST", "/v1/batches", f"Content-Length: {LONGEST}")
        begun = [stack.enter_context(door.connected()) for _ in range(12)]
        for one in begun[:2]:
            one.sendall(head + b"{")
        door.assert_serves()
        for one in begun[2:]:
            one.sendall(head + b"{")
            assert one.recv(12) == b"HTTP/1.1 429"
        assert door.other("POST", "/v1/batches", b" " * MIB + b"{}")[0] == 400
    until(lambda: door.call("POST", "/v1/batches", b" " * LONGEST + b"{}")[0] == 400)


def assert_health(connection: socket.socket) -> None:
    """Read the whole answer of /healthz."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65536) or b"}"
    assert answer.startswith(b"HTTP/1.1 200")


def test_silent_connections_lock_nobody_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """More silent connections than there are places: new callers get in at once, and the silent ones end in time."""
    monkeypatch.setattr(http_connections, "HEAD_S", 4.0)
    request = door.head("GET", "/healthz")
    with ExitStack() as stack:
        silent = []
        for number in range(300):
            one = stack.enter_context(door.connected())
            if number % 3:
                one.sendall(request)
                assert_health(one)
                one.sendall(request[: -1 if number % 3 == 1 else 20])
            silent.append(one)
        door.assert_serves()
        # Each read waits for 30 s at most.
        for one in silent:
            with suppress(ConnectionError):
                assert one.recv(1) == b""


def test_busy_connections_stay(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all connections of an address are busy, further ones are closed, until one of the others has ended."""
    monkeypatch.setattr(http_connections, "MAX_CONNECTIONS_OF_HOST", 3)
    with ExitStack() as stack:
        busy = []
        for _ in range(3):
            one = stack.enter_context(door.connected())
            one.sendall(door.head("POST", "/v1/batches", "Content-Length: 1000"))
            busy.append(one)
        until(lambda: len([one for one in connections_of(door) if one.is_busy]) == 3)
        with door.connected() as further, suppress(ConnectionError):
            assert further.recv(1) == b""
    until(lambda: not any(one.is_busy for one in connections_of(door)))
    door.assert_serves()


def connections_of(door: Door) -> list[Any]:
    return [*door.gateway.server._rest._connections._open.values()]  # type: ignore[attr-defined]


def test_drip_of_a_head_ends(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that comes byte by byte has no more time than a head that does not come."""
    monkeypatch.setattr(http_connections, "HEAD_S", 1.0)
    with door.connected() as connection, pytest.raises(ConnectionError):  # noqa: PT012
        connection.sendall(door.head("GET", "/healthz"))
        assert_health(connection)
        for _ in range(100):
            connection.sendall(b"G")
            time.sleep(0.1)


def test_silent_handshakes_end(start_gateway, certificate, monkeypatch) -> None:  # noqa: F811
    """Over TLS, connections count before their handshake."""
    monkeypatch.setattr(http_connections, "HEAD_S", 2.0)
    port = free_port()
    start_gateway(http_port=port, tls_certificate_file=certificate.certificate, tls_key_file=certificate.key)
    call = Caller(port, tls=ssl.create_default_context(cafile=str(certificate.certificate)))
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(300)]
        assert call("GET", "/healthz")[0] == 200
        for one in silent:
            with suppress(ConnectionError):
                assert one.recv(1) == b""


def test_client_that_takes_nothing_ends(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that its client does not take ends, with its call."""
    monkeypatch.setattr(http_connections, "ANSWER_S", 2)
    (door.gateway.settings.media_dir / "uploads" / "huge.bin").write_bytes(bytes(40_000_000))  # type: ignore[operator]
    try:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", door.call.port))
            lazy.sendall(door.head("GET", "/v1/files/uploads/huge.bin"))
            assert lazy.recv(12) == b"HTTP/1.1 200"
            assert door.in_flight() == 1
            until(lambda: door.in_flight() == 0, seconds=30)
    finally:
        (door.gateway.settings.media_dir / "uploads" / "huge.bin").unlink()  # type: ignore[operator]


def test_events_of_one_tenant_are_bounded(start_gateway, long_footage, tmp_path, monkeypatch) -> None:
    """One tenant's streams of events leave room for calls, and for the streams of others. Ended streams free places."""
    monkeypatch.setattr(rest, "MOST_EVENTS_OF_CALLER", 3)
    port = free_port()
    start_gateway(http_port=port, tokens=[TOKEN, f"other {OTHER_TOKEN}"])
    call, other = Caller(port, token=TOKEN), Caller(port, token=OTHER_TOKEN)
    dub = {"footageUri": long_footage, "speechUri": "speech.wav", "outputUri": "events.mp4", "skipPersonalization": True}
    _, begun = call("POST", "/v1/dubs", {"dub": dub})
    with ExitStack() as stack:

        def watch() -> int:
            return stack.enter_context(call.open("GET", f"/v1/{begun['name']}", Accept="text/event-stream")).status

        assert [watch() for _ in range(4)] == [200, 200, 200, 429]
        assert call("GET", f"/v1/{begun['name']}")[0] == 200
        with other.open("GET", f"/v1/{begun['name']}", Accept="text/event-stream") as response:
            assert response.status == 200

    def is_watched() -> bool:
        with call.open("GET", f"/v1/{begun['name']}", Accept="text/event-stream") as response:
            return response.status == 200

    until(is_watched)
    call("POST", f"/v1/{begun['name']}:cancel", {})


def test_wrong_tokens_are_slowed_down(door: Door) -> None:
    """The server compares few of many wrong tokens, and a token that was accepted before goes on from the same address."""
    assert door.call("GET", "/v1/actors")[0] == 200
    form = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    found = []
    for number in range(60):
        with Caller(door.call.port).open("POST", "/ui/sign-in", f"token=wrong-{number}".encode(), **form) as response:
            found.append(response.status)
    assert found[0] == 401
    assert found.count(429) > 20
    cookie = base64.urlsafe_b64encode(b"wrong").decode().rstrip("=")
    session = {"Cookie": f"dubstage-{door.call.port}={cookie}", "Sec-Fetch-Site": "same-origin"}
    guesses = [(path, session) for path in ("/v1/actors", f"/ui/media/uploads/{FILE}", "/ui/dubs")]
    for path, headers in [("/v1/actors", {"Authorization": "Bearer wrong"}), *guesses]:
        with Caller(door.call.port).open("GET", path, **headers) as response:
            assert response.status == 429, path
    assert door.call("GET", "/v1/actors")[0] == 200
    until(lambda: door.other("GET", "/v1/actors")[0] == 200, seconds=60)


@pytest.mark.parametrize(
    "path", ["/v1/actors", f"/v1/files/uploads/{FILE}", "/ui/dubs", f"/ui/media/uploads/{FILE}", "/", "/healthz"]
)
def test_no_header_breaks_the_server(door: Door, path: str) -> None:
    """Whatever a header holds, the answer is a page or a refusal of the caller."""
    for name in HEADERS:
        cookie = base64.urlsafe_b64encode(b"a\r\n\x00b").rstrip(b"=")
        for value in (*VALUES, b"dubstage-%d=%s" % (door.call.port, cookie), b"dubstage-%d=\xe9" % door.call.port):
            for token in ("", f"Authorization: Bearer {TOKEN}\r\n"):
                own = "" if name == "Authorization" else token
                with door.connected() as connection:
                    head = f"GET {path} HTTP/1.0\r\n{own}" + ("" if name == "Host" else "Host: localhost\r\n")
                    connection.sendall(head.encode() + name.encode() + b": " + value + b"\r\n\r\n")
                    status = int(connection.recv(12).split()[1])
                assert status < 500, (name, value)


@pytest.mark.parametrize(
    "path", ["/v1/actors", f"/v1/files/uploads/{FILE}", "/ui/dubs", "/openapi.json", "/v1/docs", "/v1/nothing", "/"]
)
def test_every_answer_is_for_own_pages(door: Door, path: str) -> None:
    """No page of another origin loads an answer, and no browser guesses the kind of an answer."""
    with door.call.open("GET", path) as response:
        assert response.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert response.headers.get_all("Cross-Origin-Resource-Policy") == ["same-origin"]


def test_first_address_leads_to_pages(door: Door) -> None:
    with door.call.open("GET", "/") as response:
        assert (response.status, response.headers["Location"]) == (303, "/ui")


@pytest.mark.parametrize(("networks", "secure"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)])
def test_cookie_is_secure_behind_proxy(start_gateway: StartGateway, tmp_path: Path, networks: str, secure: bool) -> None:
    """The scheme that a proxy of the settings forwards counts, and the scheme that another caller names does not."""
    port = free_port()
    start_gateway(http_port=port, tokens=[TOKEN], proxy_networks=networks)
    headers = {"X-Forwarded-Proto": "https", "Content-Type": "application/x-www-form-urlencoded"}
    with Caller(port).open("POST", "/ui/sign-in", f"token={TOKEN}".encode(), **headers) as response:
        assert (response.status, "; secure" in response.headers["Set-Cookie"].lower()) == (303, secure)


def test_other_loopback_address_refuses_names(start_gateway: StartGateway) -> None:
    """A gateway without tokens on any address of this machine refuses a name of another site (DNS rebinding)."""
    port = free_port()
    start_gateway(http_port=port, host="127.0.0.2")
    for host, status in {"evil.example": 403, f"127.0.0.2:{port}": 200, "localhost": 200}.items():
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=30)
        connection.request("GET", "/v1/actors", headers={"Host": host})
        with connection.getresponse() as response:
            assert response.status == status, host
            json.loads(response.read())
        connection.close()


FLOODS = {
    "chunks": (
        ("PUT", "/v1/uploads/flood.bin", "Content-Range: bytes 0-999999/1000000", "Transfer-Encoding: chunked"),
        b"1\r\nx\r\n",
    ),
    "chunks with a length": (("POST", "/v1/batches", "Transfer-Encoding: chunked", "Content-Length: 999999"), b"1\r\n \r\n"),
    "pings": (("GET", "/v1/live", *SOCKET), b"\x89\x80abcd"),
    "frames": (("GET", "/v1/live", *SOCKET), b"\x01\x80abcd" + 20_000 * b"\x00\x80abcd"),
    "messages": (("GET", "/v1/live", *SOCKET), b"\x82\x81abcda"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_small_parts_stall_nobody(door: Door, name: str) -> None:
    """A flood of chunks or frames of one byte keeps nobody waiting, however much comes at once."""
    request, part = FLOODS[name]
    flood = (FLOOD_BYTES // len(part)) * part
    with ExitStack() as stack:
        worst = stack.enter_context(stall(door.loop))
        connection = stack.enter_context(door.connected())
        connection.sendall(door.head(*request))
        if SOCKET[0] in request:
            assert connection.recv(12) == b"HTTP/1.1 101"
        connection.settimeout(3.0)
        # The server may take no more of the flood, or close the connection.
        with suppress(OSError):
            connection.sendall(flood)
        assert door.call("GET", "/healthz")[0] == 200
    assert worst() < MOST_SMALL_STALL_S
    door.call("DELETE", "/v1/uploads/flood.bin")


def test_long_parts_are_read_at_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies and chunks whose length is known come in large pieces, whatever comes behind them."""
    sizes: list[int] = []
    taken = http_connections.HttpConnection.buffer_updated

    def measured(connection: http_connections.HttpConnection, nbytes: int) -> None:
        sizes.append(nbytes)
        taken(connection, nbytes)

    monkeypatch.setattr(http_connections.HttpConnection, "buffer_updated", measured)
    data = random.Random(3).randbytes(4 * MIB)
    for more in ({}, {"Transfer-Encoding": "chunked", "Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}):
        sizes.clear()
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if more else data
        assert door.call("PUT", "/v1/uploads/long.bin", body, **more)[0] == 200
        assert sorted(sizes)[-8] > 8 * http_connections.READ_BYTES
    door.call("DELETE", "/v1/uploads/long.bin")
