"""How a stream may be abused, whatever is in it: left open, given up in the middle, never read, too large, too many at once."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import grpc

from tests.hostile.bases import Rpc
from tests.hostile.case import ANSWERED, Case, Fault, Outcome
from tests.hostile.machine import MACHINE
from tests.hostile.rpcs import COSTLY, at_once, changed, judged, send
from tests.hostile.servers import MAX_MESSAGE_BYTES
from tests.hostile.world import World

MANY = 200
"""Connections at once."""
AFTERWARDS_S = 180.0
"""Within it a server that was abused answers a valid call again."""
GRPC_FRAME_LIMIT = 64 << 20

Abuse = Callable[[World, Rpc, list[bytes], Random], Outcome]
NOISE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    b"\0" * 4096,
)


def then_serves(world: World, name: str, outcome: Outcome) -> Outcome:
    """The outcome, where the server goes on to answer a valid call; otherwise that call's."""
    after = send(world, world.rpcs[name], changed(world, name, lambda messages: None), timeout_s=AFTERWARDS_S)
    return outcome if not after.faults else after


def begun(world: World, rpc: Rpc, requests: Any, *, timeout_s: float, channel: grpc.Channel | None = None) -> Any:
    """A call that runs: it can be cancelled, and its answers can be read, or left."""
    method = rpc.callable(channel or world.channel(rpc.server))
    return method(requests, timeout=timeout_s) if rpc.responses_stream else method.future(requests, timeout=timeout_s)


def given_up(world: World, rpc: Rpc, data: list[bytes], rng: Random) -> Outcome:
    """Cancelled by the caller a moment after it began."""
    holding = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from data
        holding.wait(5)

    call = begun(world, rpc, requests() if rpc.requests_stream else data[0], timeout_s=20)
    time.sleep(rng.choice((0.0, 0.002, 0.02, 0.1)))
    call.cancel()
    holding.set()
    return Outcome("OK", "given up")


def half_open(world: World, rpc: Rpc, data: list[bytes], rng: Random) -> Outcome:
    """Some of the requests, then silence until the caller's own deadline."""
    holding = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from data[: rng.randrange(len(data) + 1)]
        holding.wait(5)

    call = begun(world, rpc, requests(), timeout_s=1.0)
    try:
        _ = list(call) if rpc.responses_stream else call.result()
    except grpc.RpcError as error:
        outcome = judged(world, error, b"".join(data), rpc)
        # The deadline was the caller's: this is the answer that the caller asked for.
        return Outcome("OK", outcome.said) if outcome.code in ("DEADLINE_EXCEEDED", "CANCELLED") else outcome
    finally:
        holding.set()
    return Outcome("OK", "ended by itself")


def never_read(world: World, rpc: Rpc, data: list[bytes], rng: Random) -> Outcome:
    """A caller that sends everything several times over and reads no answer."""
    call = begun(world, rpc, iter(data * 20), timeout_s=1.5)
    time.sleep(0.3)
    call.cancel()
    return Outcome("OK", "never read")


def too_large(world: World, rpc: Rpc, data: list[bytes], rng: Random) -> Outcome:
    """One message over the servers' limit, by an unknown field that holds nothing of use."""
    size = rng.choice((MAX_MESSAGE_BYTES + 1, 17 << 20, 17 << 20, GRPC_FRAME_LIMIT))
    return send(world, rpc, [*data[:-1], data[-1] + large_field(size)])


def large_field(size: int) -> bytes:
    """An unknown field of so many bytes."""
    length = bytearray()
    rest = size
    while rest:
        length.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
        rest >>= 7
    return b"\xfa\x7f" + bytes(length) + bytes(size)


def one_byte_messages(world: World, rpc: Rpc, data: list[bytes], rng: Random) -> Outcome:
    """A thousand empty messages behind the config."""
    return send(world, rpc, [data[0], *([b""] * 1000)])


def many_at_once(world: World, name: str, count: int = MANY) -> Outcome:
    """A valid call on each of so many new connections at once: all are answered or told to come again."""
    channels = [world.new_channel(world.rpcs[name].server) for _ in range(count)]
    try:
        data = [part.SerializeToString() for part in world.bases[name][0]]
        outcomes = at_once(world, name, [data] * count, channels)
    finally:
        for channel in channels:
            channel.close()
    faults = tuple(fault for outcome in outcomes for fault in outcome.faults)
    wrong = [outcome.code for outcome in outcomes if outcome.code not in ("OK", "RESOURCE_EXHAUSTED")]
    return Outcome(wrong[0] if wrong else "OK", f"{len(outcomes)} calls", faults)


def idle_streams(world: World, name: str, count: int = 24, seconds: float = 1.0) -> Outcome:
    """Streams of which nothing comes, as many as a stage takes at once, opened and then left by their callers."""
    rpc = world.rpcs[name]
    holding = threading.Event()

    def silent() -> Iterator[bytes]:
        holding.wait(30)
        yield from ()

    channel = world.new_channel(rpc.server)
    try:
        calls = [begun(world, rpc, silent(), timeout_s=30, channel=channel) for _ in range(count)]
        time.sleep(seconds)
        for call in calls:
            call.cancel()
    finally:
        holding.set()
        channel.close()
    return Outcome("OK", "idle")


def served_beside_idle_streams(world: World, name: str, count: int) -> Outcome:
    """Streams that take all places and fall silent behind their config: the server ends them, so that a valid call has its turn."""
    rpc = world.rpcs[name]
    holding = threading.Event()

    def silent() -> Iterator[bytes]:
        yield data[0]
        holding.wait(2 * MACHINE.bound(AFTERWARDS_S))

    data = [part.SerializeToString() for part in world.bases[name][0]]
    channel = world.new_channel(rpc.server)
    calls = [begun(world, rpc, silent(), timeout_s=2 * MACHINE.bound(AFTERWARDS_S), channel=channel) for _ in range(count)]
    begun_at = time.monotonic()
    try:
        while True:
            outcome = send(world, rpc, data, timeout_s=AFTERWARDS_S)
            if outcome.code == "OK" or time.monotonic() - begun_at > MACHINE.bound(AFTERWARDS_S, since=begun_at):
                return outcome if outcome.code == "OK" else replace(outcome, faults=(Fault("hang", f"starved: {outcome.said}"),))
            time.sleep(0.5)
    finally:
        holding.set()
        for call in calls:
            call.cancel()
        channel.close()


def raw_bytes(world: World, server: str, data: bytes) -> Outcome:
    """Bytes that are no HTTP/2 on a server's port."""
    host, _, port = world.servers.addresses[server].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(data)
        connection.settimeout(0.3)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass
    return Outcome("OK", "closed")


STREAM_ABUSES: Sequence[Abuse] = (given_up, given_up, half_open, never_read, too_large, one_byte_messages)
UNARY_ABUSES: Sequence[Abuse] = (given_up, too_large)


def stream_case(rng: Random, rpcs: Sequence[str]) -> Case:
    """An abused call of one of the methods; afterwards the server answers a valid one."""
    name = rng.choices(rpcs, [COSTLY.get(name, 1.0) for name in rpcs])[0]
    kind = rng.random()
    seed = rng.getrandbits(32)
    if kind < 0.01:
        quick = [one for one in rpcs if one not in COSTLY and not one.startswith(("gateway.Create", "texture.Sample"))]
        chosen = rng.choice(quick)
        return Case(
            "stream", f"{chosen} on {MANY} connections", lambda world: then_serves(world, chosen, many_at_once(world, chosen))
        )
    if kind < 0.03:
        return Case("stream", f"{name}: idle streams", lambda world: then_serves(world, name, _idle(world, name)))
    if kind < 0.05:
        server, data = rng.choice(("audio", "face", "motion", "texture", "render", "gateway")), rng.choice(NOISE)
        return Case("stream", f"{server}: no HTTP/2", lambda world: raw_bytes(world, server, data))

    def act(world: World) -> Outcome:
        own = Random(seed)
        rpc = world.rpcs[name]
        # Work of a call whose answer never came goes on: nothing here could end it.
        begins = name.startswith("gateway.Create")
        abuse = own.choice(STREAM_ABUSES if rpc.requests_stream else UNARY_ABUSES) if not begins else too_large
        data = [part.SerializeToString() for part in own.choice(world.bases[name])]
        return then_serves(world, name, abuse(world, rpc, data, own))

    own = Random(seed)
    return Case("stream", f"{name} abuse seed {seed} ({own.random():.3f})", act, allowed=ANSWERED | {"UNIMPLEMENTED"})


def _idle(world: World, name: str) -> Outcome:
    return idle_streams(world, name) if world.rpcs[name].requests_stream else Outcome("OK", "no stream")
