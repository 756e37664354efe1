"""The HTTP surface: bodies, connections, events, downloads, uploads, tokens and headers, each of a caller with bad intent."""

import base64
import hashlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from random import Random
from typing import Final

from gateway.api.http_bodies import MOST_BYTES
from gateway.api.http_callers import MOST_WRONG, WRONG_EVERY_S
from gateway.api.rest import ROUTES
from tests.hostile.case import Case, Fault, Outcome
from tests.hostile.door import ANSWER_S, ANSWERED_HTTP, CLOSED_S, Answer, Door, Visitor, answer_of, break_off, head, judged_answer
from tests.hostile.machine import MACHINE
from tests.hostile.rpcs import own_places
from tests.hostile.world import World

WRONG_TOKENS: Final = 30
"""More wrong tokens than the door checks of one client address at once."""
_VARIABLE: Final = re.compile(r"\{(\w+)(?:=([^}]*))?\}")
_MOST_SENT: Final = 2 << 20
"""Most bytes of one body that a case sends."""
_TOO_LARGE: Final = (MOST_BYTES + 1, 1 << 33, 10**17)
"""Lengths of bodies that no request may have, bytes."""

Act = Callable[[World, Visitor], Outcome]
_TYPES: Final = (
    *("application/json", "application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"),
    *("text/plain; charset=utf-16", "application/grpc", "/"),
)
_VERBS: Final = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "\x00", "A" * 300)
_NAMES: Final = (
    *("Authorization", "Cookie", "Host", "Origin", "Referer", "Sec-Fetch-Site", "Range", "If-Range", "Content-Range", "Accept"),
    *("Repr-Digest", "X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Email", "Content-Type", "Expect", "Content-Length"),
    *("Transfer-Encoding", "Connection", "Upgrade", "TE", "Forwarded", "X-HTTP-Method-Override", "grpc-timeout", ":authority", ""),
)
_VALUES: Final = (
    b"\xe9", b"Bearer \xe9", b"Bearer a\tb", b"Bearer ", b"Basic Og==", b"[", b"http://[", b"bytes=-", b"sha-256=:\xff:",
    b"\xed\xa0\x80", b"%", b"%00", b"," * 900, b"a" * 20_000, b"\x01\x02", b"a\x00b", b"gzip, chunked", b"chunked", b"-1", b"1, 2",
    b"h2c", b"websocket", b"100-continue", b"text/event-stream", b"null", b"localhost:0", b"evil.example", b"\x7f", b"a\rb",
)  # fmt: skip
_TARGETS: Final = (
    "/%00", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/actors/" + "a" * 20_000, "//v1/actors", "http://evil.example/v1/actors", "*",
    "/v1/operations?pageSize=1&pageSize=2", "/v1/operations?pageSize=99999999999999999999", "/v1/operations?" + "a=1&" * 4000,
    "/v1/actors?%ff=%fe", "/v1/files/..%2f..%2fetc%2fpasswd", "/ui/static/../../session.py", "/ui/static/%2e%2e/%2e%2e/session.py",
    "/ui/sign-in?next=//evil.example", "/v1/actors#x", "/v1/actors;a=b", "/v1/\u00e9", "",
)  # fmt: skip


def http_act(name: str, act: Act, *, allowed: frozenset[str] = ANSWERED_HTTP) -> Case:
    """Return a case: an action of a visitor of the door, then the checks of the door."""

    def whole(world: World) -> Outcome:
        with world.door.visitor() as visitor:
            try:
                outcome = act(world, visitor)
            except TimeoutError as problem:
                outcome = Outcome("hang", "", (Fault("hang", f"no answer: {problem}"),))
            return replace(outcome, faults=(*outcome.faults, *world.door.faults_after(visitor)))

    return Case("http", name, whole, allowed=allowed)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one outcome for several: the code of the last one that was refused, and all faults."""
    last = next((one for one in reversed(outcomes) if one.code not in ("OK", "closed")), outcomes[-1])
    return replace(last, faults=tuple(fault for one in outcomes for fault in one.faults))


def path_of(template: str) -> str:
    """Return a path of a route, which names nothing that there is, such as `/v1/actors/none`."""
    return _VARIABLE.sub(lambda found: (found[2] or "*").replace("**", "none.mp4").replace("*", "none"), template)


_BODIES: Final = [route for route in ROUTES if route.has_body and "sign" not in route.template]
BODY_ROUTES: Final = tuple((route.verb, path_of(route.template)) for route in _BODIES)
"""Method and path of each route that takes JSON."""
ALL_PATHS: Final = (*(path_of(route.template) for route in ROUTES), "/ui/dubs", "/ui/media/uploads/none.mp4", "/healthz", "/")


def sent(connection: socket.socket, data: bytes) -> bool:
    """Send bytes, and return whether the server took them all."""
    try:
        connection.sendall(data)
    except ConnectionError:
        return False
    return True


# Bodies


def _filled(begin: bytes, item: bytes, end: bytes, size: int) -> bytes:
    return begin + b",".join([item] * max(1, (size - len(begin) - len(end)) // (len(item) + 1))) + end


def hostile_body(rng: Random) -> tuple[str, bytes]:
    """Return a body that is no request of any RPC, and its name."""
    size = rng.choice((100, 10_000, 300_000, 1_500_000))
    depth = rng.choice((50, 3000, 190_000))
    name = rng.choice(("nested", "values", "objects", "noise", "number", "twice", "letters", "text", "escapes", "null", "names"))
    match name:
        case "nested":
            bracket = rng.choice((b"[", b'{"a":'))
            body = b'{"rows":' + bracket * min(depth, _MOST_SENT // len(bracket))
        case "values":
            body = _filled(b'{"rows":[', rng.choice((b"1e3", b"[]", b"null", b'""')), b"]}", size)
        case "objects":
            body = _filled(b'{"batchId":"a","rows":[', b"{}", b"]}", size)
        case "noise":
            body = rng.randbytes(size)
        case "number":
            body = b'{"pageSize":' + rng.choice((b"1e999", b"NaN", b"-Infinity", b"9" * min(size, 100_000), b"-0", b"0x1")) + b"}"
        case "twice":
            body = b'{"batchId":"a","batchId":"b","nothing":1,"batch_id":7}'
        case "letters":
            body = rng.choice((b'{"batchId":"\xff\xfe"}', b'{"batchId":"\\ud800"}', b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16")))
        case "text":
            body = json.dumps({"dub": {"footageUri": "x" * size}, "batchId": "\u202e\x00"}).encode()
        case "escapes":
            body = b'{"batchId":"' + b"\\u00e9" * (size // 6) + b'"}'
        case "null":
            body = rng.choice((b"null", b"[]", b"7", b'"a"', b"{", b"", b"{}x"))
        case _:
            body = b"{" + b",".join(b'"%d":{}' % number for number in range(size // 8)) + b"}"
    return name, body


def body_case(rng: Random) -> Case:
    """A hostile body, with a token, with a wrong one, or without."""
    verb, path = rng.choice(BODY_ROUTES)
    who = rng.choice(("no token", "a wrong token", "a token", "a token"))
    way = rng.choice(("whole", "whole", "whole", "unfinished", "chunked", "large"))
    seed = rng.getrandbits(32)

    def act(world: World, visitor: Visitor) -> Outcome:
        own = Random(seed)
        token = {"no token": "", "a wrong token": "wrong", "a token": visitor.token}[who]
        # The parser may see a chunk that is none before the token is looked at.
        allowed = () if token == visitor.token else (400, 401) if way == "chunked" else (401,)
        name, body = hostile_body(own)
        more = [f"Content-Type: {own.choice(_TYPES)}", *own.choice(([], [], ["Content-Encoding: gzip"], ["Expect: 100-continue"]))]
        with world.door.connect(visitor.address) as connection:
            if way == "whole":
                sent(connection, head(verb, path, *more, f"Content-Length: {len(body)}", token=token) + body)
            elif way == "chunked":
                sent(connection, head(verb, path, *more, "Transfer-Encoding: chunked", token=token) + _chunks(own, body))
            else:
                size = len(body) + own.choice((1, 1000, 1 << 20)) if way == "unfinished" else own.choice(_TOO_LARGE)
                begin = body[: own.randrange(len(body) + 1)]
                sent(connection, head(verb, path, *more, f"Content-Length: {size}", token=token) + begin)
            if way in ("unfinished", "chunked") and token == visitor.token:
                # The door waits for the rest, as it must: an answer may come, and need not.
                connection.settimeout(own.choice((0.05, 0.3)))
                try:
                    return _answered(world, answer_of(connection, verb))
                except TimeoutError:
                    break_off(connection) if own.random() < 0.5 else connection.close()
                    return Outcome("closed", name)
            return _answered(world, answer_of(connection, verb), allowed=allowed)

    return http_act(f"{verb} {path}, a {way} body with {who}, seed {seed}", act)


def _answered(world: World, answer: Answer, *, allowed: Sequence[int] = ()) -> Outcome:
    return judged_answer(answer, own_places(world), allowed=allowed)


def _chunks(rng: Random, body: bytes) -> bytes:
    """Return a body in chunks, whose end or whose sizes may be wrong."""
    part = body[: rng.choice((10, 1000, 70_000))]
    good = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
    wrong = (b"ffffffffffffffff\r\n" + part, b"-1\r\n", b"zz\r\n", b"1;" + b"x" * 40_000, good[:-3])
    return rng.choice((good, good + b"0\r\n\r\n", *wrong))


# Connections


def idle_case(rng: Random) -> Case:
    """Connections that send nothing, half a head, or one byte after the other, while an honest caller asks for health."""
    number = rng.choice((1, 5, 20, 60, 120))
    seed = rng.getrandbits(32)
    return http_act(f"{number} idle connections, seed {seed}", idle(number, seed))


def idle(number: int, seed: int) -> Act:
    """Return the action of a visitor who holds so many connections for a moment."""
    begins = (b"", b"G", b"GET / HT", head("GET", "/v1/actors")[:-2], head("POST", "/v1/dubs", "Content-Length: 10") + b"{",
              b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n")  # fmt: skip

    def act(world: World, visitor: Visitor) -> Outcome:
        own = Random(seed)
        with ExitStack() as stack:
            held = [stack.enter_context(world.door.connect(visitor.address)) for _ in range(number)]
            for connection in held:
                sent(connection, own.choice(begins))
            faults = world.door.health_faults()
            for _ in range(own.choice((0, 3))):
                time.sleep(0.1)
                for connection in held:
                    sent(connection, b"x")
            for connection in own.sample(held, number // 2):
                break_off(connection)
        return Outcome("OK", f"{number} connections", tuple(faults))

    return act


# Events


def events_case(rng: Random) -> Case:
    """Streams of events about a dub, opened and broken off at once, after an event, or never read."""
    number = rng.choice((1, 3, 10, 30))
    seed = rng.getrandbits(32)
    return http_act(f"{number} streams of events, seed {seed}", events(number, seed))


def events(number: int, seed: int) -> Act:
    """Return the action of a visitor who opens so many streams of events about one dub, and leaves each in some way."""

    def act(world: World, visitor: Visitor) -> Outcome:
        own, door = Random(seed), world.door
        output = f"case-{visitor.mark}.mp4"
        fields = {"footageUri": "footage.mp4", "speechUri": "speech.wav", "outputUri": output, "skipPersonalization": True}
        name = door.call(visitor, "POST", "/v1/dubs", {"dub": fields})["name"]
        outcomes = []
        try:
            with ExitStack() as stack:
                for _ in range(number):
                    connection = stack.enter_context(door.connect(visitor.address))
                    sent(connection, head("GET", f"/v1/{name}", "Accept: text/event-stream", token=visitor.token))
                    outcomes.append(_left(world, own, connection))
                outcomes.append(Outcome("OK", "", tuple(door.health_faults())))
        finally:
            faults = _ended(door, visitor, name, output)
        return worst([*outcomes, Outcome("OK", "", tuple(faults))])

    return act


def _left(world: World, rng: Random, connection: socket.socket) -> Outcome:
    """Read nothing, the status, or an event of a stream, and leave the stream or hold it."""
    wanted = rng.choice((0, 12, 400))
    data = b""
    connection.settimeout(MACHINE.bound(ANSWER_S))
    while len(data) < wanted and (part := connection.recv(wanted - len(data))):
        data += part
    if rng.random() < 0.7:
        break_off(connection) if rng.random() < 0.5 else connection.close()
    if not data:
        return Outcome("OK")
    status = int(data.split(b" ", 2)[1])
    return _answered(world, Answer(status, {}, b""), allowed=(200, 429))


def _ended(door: Door, visitor: Visitor, name: str, output: str) -> list[Fault]:
    """Cancel a dub, wait for its end, and remove its video."""
    begun = time.monotonic()
    door.ask(visitor.address, "POST", f"/v1/{name}:cancel", b"{}", token=visitor.token)
    faults = []
    while not door.call(visitor, "GET", f"/v1/{name}")["done"]:
        if time.monotonic() - begun > MACHINE.bound(6 * CLOSED_S, since=begun):
            faults.append(Fault("hang", f"{name} goes on {time.monotonic() - begun:.0f} s after it was cancelled"))
            break
        time.sleep(0.1)
    # The dub may have ended before it was cancelled.
    for path in visitor.media.glob(f"{output}*"):
        path.unlink()
    return faults


# Downloads


def download_case(rng: Random) -> Case:
    """Downloads and ranges of one file, some broken off at any place."""
    number = rng.choice((1, 5, 25))
    seed = rng.getrandbits(32)
    return http_act(f"{number} downloads, seed {seed}", downloads(number, seed))


def downloads(number: int, seed: int) -> Act:
    """Return the action of a visitor who asks so many times for parts of a file, and checks each byte that comes."""

    def act(world: World, visitor: Visitor) -> Outcome:
        own = Random(seed)
        data = own.randbytes(own.choice((1, 1000, 300_000, 3_000_000)))
        name = f"case-{visitor.mark}.bin"
        visitor.uploads.mkdir(parents=True, exist_ok=True)
        (visitor.uploads / name).write_bytes(data)
        try:
            outcomes = [_downloaded(world, visitor, own, f"/v1/files/uploads/{name}", data) for _ in range(number)]
        finally:
            faults = world.door.remove_upload(visitor, name)
        return worst([*outcomes, Outcome("OK", "", tuple(faults))])

    return act


def _downloaded(world: World, visitor: Visitor, rng: Random, path: str, data: bytes) -> Outcome:
    first = rng.randrange(len(data))
    last = rng.randrange(first, len(data))
    asked = rng.choice(
        ("", f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last + 1}", f"bytes={len(data)}-", "bytes=5-1", "bytes=0-0,2-3",
         "bytes=-", "bytes=99999999999999999999-", "lines=1-2", f"bytes= {first} - {last} ")
    )  # fmt: skip
    more = [f"Range: {asked}"] if asked else []
    more += rng.choice(([], [], ['If-Range: "other"'], ["If-Range: Wed, 21 Oct 2015 07:28:00 GMT"], ["If-None-Match: *"]))
    verb = rng.choice(("GET", "GET", "GET", "HEAD"))
    with world.door.connect(visitor.address) as connection:
        sent(connection, head(verb, path, *more, token=visitor.token))
        if rng.random() < 0.4:
            with suppress(OSError):
                connection.settimeout(rng.choice((0.001, 0.05)))
                connection.recv(rng.choice((1, 1000, 100_000)))
            break_off(connection) if rng.random() < 0.5 else connection.close()
            return Outcome("closed")
        # The whole file may be larger than what `answer_of` keeps.
        answer = _whole_answer(connection, verb)
    outcome = _answered(world, replace(answer, body=b"" if answer.status < 400 else answer.body), allowed=(200, 206, 404, 405, 416))
    wanted = data
    if answer.status == 206:
        begin, end = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/\d+", answer.headers["content-range"]).groups())  # type: ignore[union-attr]
        wanted = data[begin : end + 1]
    if answer.status in (200, 206) and verb == "GET" and answer.body != wanted:
        return replace(outcome, faults=(*outcome.faults, Fault("message", f"{asked!r}: other bytes than those of the file")))
    return outcome


def _whole_answer(connection: socket.socket, verb: str) -> Answer:
    response = http.client.HTTPResponse(connection, method=verb)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Answer(response.status, headers, response.read(), without_body=verb == "HEAD")
    finally:
        response.close()


# Uploads


def upload_case(rng: Random) -> Case:
    """An upload whose parts break off or lie, which then goes on to its end."""
    seed = rng.getrandbits(32)
    return http_act(f"an upload that breaks off, seed {seed}", uploads(rng.choice((1, 4, 10)), seed))


def uploads(tries: int, seed: int) -> Act:
    """Return the action of a visitor whose upload breaks off so many times, goes on where it was, and is checked."""

    def act(world: World, visitor: Visitor) -> Outcome:
        own, door = Random(seed), world.door
        data = own.randbytes(own.choice((1, 5000, 400_000, 2_000_000)))
        name, path = f"case-{visitor.mark}.bin", f"/v1/uploads/case-{visitor.mark}.bin"
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        outcomes = []
        try:
            for _ in range(tries):
                outcomes.append(_broken_upload(world, visitor, own, path, data))
            outcomes.append(_finished_upload(world, visitor, path, data, f"Repr-Digest: sha-256=:{digest}:"))
        finally:
            faults = door.remove_upload(visitor, name)
        return worst([*outcomes, Outcome("OK", "", tuple(faults))])

    return act


def _broken_upload(world: World, visitor: Visitor, rng: Random, path: str, data: bytes) -> Outcome:
    first = rng.randrange(len(data))
    last = rng.randrange(first, len(data))
    size = len(data)
    told = rng.choice(
        (f"Content-Length: {size}", f"Content-Length: {size}", f"Content-Range: bytes {first}-{last}/{size}",
         f"Content-Range: bytes {last}-{first}/{size}", f"Content-Range: bytes 0-{10**17}/{10**18 - 1}", "Content-Range: bytes */5",
         "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked", "Repr-Digest: sha-256=:AAAA:",
         f"Content-Length: {1 << 45}", "Content-Length: 0")
    )  # fmt: skip
    with world.door.connect(visitor.address) as connection:
        sent(connection, head("PUT", path, told, token=rng.choice((visitor.token, visitor.token, visitor.token, "wrong", ""))))
        sent(connection, data[: rng.randrange(size + 1)])
        connection.settimeout(rng.choice((0.01, 0.2)))
        try:
            return _answered(world, answer_of(connection, "PUT"))
        except TimeoutError:
            break_off(connection) if rng.random() < 0.5 else connection.close()
            return Outcome("closed")


def _finished_upload(world: World, visitor: Visitor, path: str, data: bytes, digest: str) -> Outcome:
    """Send what is missing of an upload. A call that was broken off may hold the file for a moment."""
    begun = time.monotonic()
    while True:
        found = world.door.ask(visitor.address, "GET", path, token=visitor.token)
        there = int(found.json()["receivedBytes"]) if found.status == 200 else 0
        # A broken part may have been the whole file, with other bytes behind a wrong size.
        first = there if found.status == 200 and not found.json()["complete"] and there < len(data) else 0
        told = f"Content-Range: bytes {first}-{len(data) - 1}/{len(data)}"
        with world.door.connect(visitor.address) as connection:
            left = data[first:]
            sent(connection, head("PUT", path, told, digest, f"Content-Length: {len(left)}", token=visitor.token) + left)
            answer = answer_of(connection, "PUT")
        if answer.status == 200 and answer.json()["sha256"] == hashlib.sha256(data).hexdigest():
            return Outcome("OK", "the upload is whole")
        if time.monotonic() - begun > MACHINE.bound(2 * CLOSED_S, since=begun):
            outcome = _answered(world, answer)
            fault = Fault("leftover", f"an upload that broke off cannot go on: HTTP {answer.status} {answer.body[:300]!r}")
            return replace(outcome, faults=(*outcome.faults, fault))
        time.sleep(0.1)


# Tokens


def token_case(rng: Random) -> Case:
    """Wrong tokens in every place for tokens: honest callers of the same address and of others go on."""
    seed = rng.getrandbits(32)
    return http_act(f"{WRONG_TOKENS} wrong tokens, seed {seed}", wrong_tokens(seed))


def wrong_tokens(seed: int) -> Act:
    """Return the action of a visitor who tries tokens."""

    def act(world: World, visitor: Visitor) -> Outcome:
        own, door = Random(seed), world.door

        def right(address: str, when: str) -> Outcome:
            answer = door.ask(address, "GET", "/v1/actors", token=visitor.token)
            fault = Fault("code", f"a right token {when}: HTTP {answer.status} {answer.body[:200]!r}")
            return Outcome("OK", "", () if answer.status == 200 else (fault,))

        outcomes = [right(visitor.address, "before the wrong ones")]
        statuses, guesses, begun = [], 0, time.monotonic()
        for number in range(WRONG_TOKENS):
            wrong = own.choice((f"wrong-{number}", visitor.token[:-1], visitor.token + "0", visitor.token.upper(), " ", "x" * 9000))
            answer = _tried(door, visitor, own, wrong)
            statuses.append(answer.status)
            # A blank token guesses nothing, so the gateway does not count it.
            guesses += answer.status == 401 and bool(wrong.strip())
            outcomes.append(_answered(world, answer, allowed=(400, 401, 429)))
        tried_at = time.monotonic()
        outcomes.append(right(visitor.address, "that was right before, behind wrong ones"))
        outcomes.append(right(visitor.other_address, "from another address, behind wrong ones"))
        # A slow machine sends fewer tokens than the address may send again meanwhile. The last guess is refused for those before.
        if 429 not in statuses and guesses - 1 - (tried_at - begun) / WRONG_EVERY_S > MOST_WRONG:
            outcomes.append(Outcome("OK", "", (Fault("code", f"{WRONG_TOKENS} wrong tokens are all looked at: {statuses}"),)))
        return worst(outcomes)

    return act


def _tried(door: Door, visitor: Visitor, rng: Random, token: str) -> Answer:
    kind = rng.choice(("bearer", "bearer", "cookie", "form"))
    if kind == "form":
        form = f"token={token}".encode()
        return door.ask(visitor.address, "POST", "/ui/sign-in", form, headers=["Content-Type: application/x-www-form-urlencoded"])
    if kind == "cookie":
        cookie = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
        headers = [f"Cookie: {door.cookie}={cookie}", "Sec-Fetch-Site: same-origin"]
        return door.ask(visitor.address, "GET", "/v1/actors", headers=headers)
    return door.ask(visitor.address, "GET", "/v1/actors", token=token)


# Headers


def header_case(rng: Random) -> Case:
    """A request with odd headers, an odd method or an odd target."""
    seed = rng.getrandbits(32)
    return http_act(f"odd headers, seed {seed}", odd_headers(seed))


def odd_headers(seed: int) -> Act:
    """Return the action of a visitor who sends one request of a strange form."""

    def act(world: World, visitor: Visitor) -> Outcome:
        own = Random(seed)
        verb = own.choice(_VERBS)
        target = own.choice(_TARGETS) if own.random() < 0.4 else own.choice(ALL_PATHS)
        version = own.choice(("1.1", "1.1", "1.1", "1.0", "0.9", "2.0", "9.9", "x"))
        lines = [f"{verb} {target} HTTP/{version}".encode("latin-1")]
        lines += [b"Host: localhost"] if own.random() < 0.8 else []
        if own.random() < 0.5:
            lines.append(f"Authorization: Bearer {visitor.token}".encode())
        for _ in range(own.choice((1, 1, 3, 300))):
            lines.append(own.choice(_NAMES).encode() + own.choice((b": ", b":", b" : ", b"")) + own.choice(_VALUES))
        if own.random() < 0.2:
            control = base64.urlsafe_b64encode(own.choice((b"a\r\n\x00b", b"\xff", b"\x7f" * 5000))).rstrip(b"=")
            lines.append(b"Cookie: " + world.door.cookie.encode() + b"=" + control)
        with world.door.connect(visitor.address) as connection:
            sent(connection, b"\r\n".join([*lines, b"", b""]))
            # A request may announce a body that does not come: then the door waits.
            connection.settimeout(0.5)
            try:
                return _answered(world, answer_of(connection, verb if verb == "HEAD" else "GET"))
            except TimeoutError:
                return Outcome("closed")

    return act


_MAKERS: Final[dict[Callable[[Random], Case], float]] = {
    body_case: 6.0,
    idle_case: 2.0,
    events_case: 1.0,
    download_case: 3.0,
    upload_case: 3.0,
    token_case: 1.0,
    header_case: 4.0,
}


def http_case(rng: Random) -> Case:
    """A hostile action over HTTP."""
    return rng.choices(tuple(_MAKERS), tuple(_MAKERS.values()))[0](rng)


ROW: Final = {"id": "a", "footage": "footage.mp4", "speech": "speech.wav", "output": "case-odd.mp4"}
ODD_REQUESTS: Final = (
    *(("GET", path, b"") for path in ("/v1/actors%0A", "/v1/%09actors/none", "/v1/actors/none:picture%0D", "/v1/files/a%0Ab")),
    *(("POST", "/v1/batches", body) for body in (b'{"engine":1e400}', rb'{"\ud800":1}', b'{"engine":"\xed\xa0\x80"}')),
    ("POST", "/v1/dubs", b'{"dub":{"point":{"x":%b}}}' % (b"9" * 400)),
)
"""Paths with line breaks, halves of characters, and numbers too large for any field."""
ODD_FIELDS: Final[tuple[dict[str, object], ...]] = (
    {"\ud800": 1},
    {"actor": "\udfff"},
    {"fit": []},
    {"codec": {}},
    {"seed": 10**400},
)
"""Fields of rows that no message holds."""


def odd_requests(world: World, visitor: Visitor) -> Outcome:
    """Send requests that parsers take, and messages do not hold."""
    rows = (json.dumps({**ROW, **fields}).encode() for fields in ODD_FIELDS)
    bodies = [{"batchId": "odd", "validateOnly": True, "manifest": base64.b64encode(row).decode()} for row in rows]
    asked = [*ODD_REQUESTS, *(("POST", "/v1/batches", json.dumps(body).encode()) for body in bodies)]
    answers = [world.door.ask(visitor.address, verb, path, body, token=visitor.token) for verb, path, body in asked]
    return worst([_answered(world, answer) for answer in answers])


KNOWN_HTTP: tuple[Case, ...] = (
    http_act("requests that no message holds", odd_requests),
    http_act("120 idle connections", idle(120, 1)),
    http_act("25 downloads and ranges that break off", downloads(25, 2)),
    http_act("an upload that breaks off ten times", uploads(10, 3)),
    http_act("streams of events that break off", events(10, 4)),
    http_act("wrong tokens lock no honest caller out", wrong_tokens(5)),
)
