"""Calls that wait or watch for long at a gateway that takes few calls: others are answered, and all who wait get their result."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from dubstage.client import Connection, DubstageCallError, batch, rpcs
from dubstage.client import gateway as client
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.settings import TENANTS_FOLDER
from tests.integration.client_calls import dubbing, until
from tests.integration.servers import RunningGateway
from tests.integration.videos import NUM_FRAMES
from tests.refusals import refused

# No other test has these tenants: one database counts the blobs of a tenant's store.
TOKENS = {"emma": "token-of-emma-1234", "finn": "token-of-finn-1234"}
MAX_CALLS, MAX_QUEUED = 8, 2
MOST_OF_TENANT, MOST_LONG_OF_TENANT = 6, 2
WAITS = 80


@dataclass(frozen=True)
class Place:
    """A gateway that takes few calls."""

    running: RunningGateway

    def connect(self, tenant: str) -> Connection:
        return self.running.connect(token=TOKENS[tenant])


@pytest.fixture(scope="module")
def gateway(module_gateway, media, long_footage, tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("long_calls")
    home = folder / "media" / TENANTS_FOLDER / "emma"
    home.mkdir(parents=True)
    for file in (media.footage, media.speech, media.root / long_footage):
        shutil.copy(file, home)
    calls = {"max_concurrent_rpcs": MAX_CALLS, "max_queued_rpcs": MAX_QUEUED}
    tokens = [f"{tenant} {token}" for tenant, token in TOKENS.items()]
    return Place(module_gateway(tokens=tokens, media_dir=folder / "media", **calls))


@pytest.fixture
def place(gateway: Place) -> Iterator[Place]:
    yield gateway
    # The gateway hears somewhat later that a caller has left.
    until(lambda: gateway.running.server._admission.load.running == 0)


def waited(connection: Connection, name: str) -> client.OperationState | None:
    """Wait for the end of an operation by one call. None: the tenant has too many calls."""
    with contextlib.suppress(DubstageCallError):
        return client.wait_operation(connection, name, 600)
    return None


def test_tenant_waits_leave_room(place: Place, long_footage: str) -> None:
    with place.connect("emma") as emma, place.connect("finn") as finn, ThreadPoolExecutor(WAITS) as threads:
        dub = client.dub(emma, **dubbing("long.mp4", footage=long_footage))
        waits = [threads.submit(waited, emma, dub.name) for _ in range(WAITS)]
        try:
            until(lambda: sum(wait.done() for wait in waits) >= WAITS - MAX_CALLS - MAX_QUEUED)
            assert list(client.list_actors(finn)) == []
            until(lambda: sum(wait.done() for wait in waits) == WAITS - MOST_LONG_OF_TENANT)
            # Over the bound, an operation is shown as it is.
            state = waited(emma, dub.name)
            assert not state.done
        finally:
            until(lambda: cancelled(dub))
        ended = [state.error for wait in waits if (state := wait.result()) is not None and state.done]
        assert [error.code for error in ended if error is not None] == ["CANCELLED"] * MOST_LONG_OF_TENANT


def cancelled(dub: client.Operation[Any, Any]) -> bool:
    """Cancel a dub, unless the tenant has too many calls."""
    with contextlib.suppress(DubstageCallError):
        dub.cancel()
        return True
    return False


def test_tenant_idle_streams_leave_room(place: Place) -> None:
    """Streams of one tenant that say nothing leave room for the calls of another."""
    count = 2 * (MAX_CALLS + MAX_QUEUED)
    spoken = threading.Event()

    def silence() -> Iterator[pb.LiveRequest]:
        spoken.wait(60)
        yield from ()

    def stream(connection: Connection) -> None:
        with contextlib.suppress(DubstageCallError):
            list(connection.stream(rpcs.gateway.LIVE, silence()))

    with place.connect("emma") as emma, place.connect("finn") as finn, ThreadPoolExecutor(count) as threads:
        streams = [threads.submit(stream, emma) for _ in range(count)]
        try:
            until(lambda: sum(one.done() for one in streams) >= count - MAX_CALLS - MAX_QUEUED)
            assert list(client.list_actors(finn)) == []
            until(lambda: sum(one.done() for one in streams) == count - MOST_OF_TENANT)
        finally:
            spoken.set()


@pytest.mark.long
def test_all_who_wait_get_the_result(place: Place) -> None:
    callers = 2 * MOST_LONG_OF_TENANT + 1
    with place.connect("emma") as emma, ThreadPoolExecutor(callers) as threads:
        dub = client.dub(emma, **dubbing("short.mp4"))
        results = [threads.submit(dub.wait, timeout_s=300) for _ in range(callers)]
        assert [result.result().num_frames for result in results] == [NUM_FRAMES] * callers


def test_excess_call_gets_retry_time(place: Place, long_footage: str) -> None:
    """A watch, a report or an estimate over the bound is refused with a time to come again."""
    row = batch.row("a", footage=long_footage, output="watched.mp4", speech="speech.wav", personalize=False)
    with place.connect("emma") as emma, contextlib.ExitStack() as watches:
        batch.submit(emma, "watched", rows=[row])
        for _ in range(MOST_LONG_OF_TENANT):
            assert next(watches.enter_context(contextlib.closing(batch.watch(emma, "watched")))).num_shots == 1
        spec = client.dub.request(**dubbing("estimated.mp4")).dub
        for call in (
            lambda: next(batch.watch(emma, "watched")),
            lambda: next(batch.report(emma, "watched")),
            lambda: client.estimate(emma, spec),
        ):
            with refused(
                match="calls of one tenant that wait, watch, estimate or send reports",
                code="RESOURCE_EXHAUSTED",
                reason="OVERLOADED",
            ) as caught:
                call()
            assert caught.value.retry_after_s > 0
        assert batch.cancel(emma, "watched").num_shots == 1
