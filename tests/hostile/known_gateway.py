"""Past faults of a gateway that concerned people, videos or callers while other work ran."""

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
from google.longrunning import operations_pb2

from dubstage.gateway.v1 import gateway_pb2
from tests.hostile.bases import RATE_HZ, dubbing
from tests.hostile.case import Case, Fault, Outcome
from tests.hostile.children import dubstage
from tests.hostile.commands import run
from tests.hostile.lines import OK
from tests.hostile.machine import MACHINE
from tests.hostile.world import World

CREATE_DUB = "/dubstage.gateway.v1.DubService/CreateDub"
ENDS_WITHIN_S = 60.0
TAKEN_WITHIN_S = 60.0


def erased_by_the_command_line(world: World) -> Outcome:
    """`dubstage actor erase` beside the gateway ends an open live stream of the person, and forgets operations that name them."""
    actor = "leaving"
    world.enrol(actor, footage="other.mp4")
    ended = threading.Event()

    def speech() -> Iterator[bytes]:
        config = gateway_pb2.LiveConfig(actor=f"actors/{actor}", sample_rate_hz=RATE_HZ, channels=1)
        yield gateway_pb2.LiveRequest(config=config).SerializeToString()
        piece, first = np.zeros(640, "<f4").tobytes(), 0
        while not ended.wait(0.04):
            yield gateway_pb2.LiveRequest(audio=gateway_pb2.LiveAudio(first_sample=first, pcm_f32=piece)).SerializeToString()
            first += 640

    world.live_places.acquire()
    try:
        frames = _taken(world, speech)
        gateway = {"DUBSTAGE_DATA_DIR": str(world.servers.data), "DUBSTAGE_ARTEFACTS_URL": str(world.servers.store)}
        outcome = dubstage(["actor", "erase", actor], world.sandbox(), {**world.servers.environment(), **gateway})
        faults = [*outcome.faults]
        if not _ends(frames):
            faults.append(Fault("leftover", "the live stream of an erased person goes on"))
    finally:
        ended.set()
        world.live_places.release()
    (listed,) = world.operation("ListOperations", operations_pb2.ListOperationsRequest())
    if any(actor in str(operation) for operation in listed.operations):  # type: ignore[attr-defined]
        faults.append(Fault("leftover", "an operation still names the erased person"))
    return Outcome(outcome.code, outcome.said, tuple(faults))


def _taken(world: World, speech: Callable[[], Iterator[bytes]]) -> Iterator[object]:
    """Return the frames of a live stream after the first. A gateway that has no time for the stream at first is asked again.

    Args:
        speech: returns the requests of a stream.

    Raises:
        grpc.RpcError: the gateway refuses the stream for another reason, or for TAKEN_WITHIN_S seconds.
    """
    begun = time.monotonic()
    while True:
        frames = iter(world.rpcs["gateway.Live"].callable(world.channel("gateway"))(speech(), timeout=600))
        try:
            next(frames)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() - begun > MACHINE.bound(
                TAKEN_WITHIN_S, since=begun
            ):  # type: ignore[attr-defined]
                raise
            time.sleep(1.0)
        else:
            return frames


def _ends(frames: Iterator[object]) -> bool:
    """Whether a stream ends by itself."""
    begun = time.monotonic()
    try:
        for _ in frames:
            if time.monotonic() - begun > MACHINE.bound(ENDS_WITHIN_S, since=begun):
                return False
    except grpc.RpcError:
        pass
    return True


def cancelled_while_it_waits(world: World) -> Outcome:
    """An operation that is cancelled before its turn leaves nothing in the media folder."""
    folder = world.servers.media / "case-waiting"
    folder.mkdir()
    try:
        names = []
        for number in range(3):
            request = dubbing(output_uri=f"{folder.name}/{number}.mp4", skip_personalization=True)
            (operation,) = world.call("gateway", CREATE_DUB, [request])
            names.append(operation.name)  # type: ignore[attr-defined]
        for name in reversed(names):
            world.settle(name)
        faults = tuple(Fault("leftover", f"in the media folder: {path.name}") for path in folder.iterdir())
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return Outcome("OK", "", faults)


def port_that_is_taken(world: World) -> Outcome:
    """A server on a port that is taken ends with a sentence."""
    port = world.servers.addresses["audio"].rpartition(":")[2]
    outcome = run(world, world.sandbox(), ["serve", "audio"], DUBSTAGE_PORT=port)
    said = port in outcome.said and "error" in outcome.said and '"event"' not in outcome.said
    return outcome if said else outcome.adding([Fault("message", outcome.said[-300:])])


KNOWN_GATEWAY: tuple[Case, ...] = (
    Case("command", "actor erase beside a running gateway", erased_by_the_command_line, OK),
    Case("rpc", "an operation that is cancelled while it waits", cancelled_while_it_waits, frozenset({"OK"})),
    Case("command", "serve on a port that is taken", port_that_is_taken, frozenset({"exit 10"})),
)
