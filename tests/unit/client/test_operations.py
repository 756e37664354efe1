"""Operations of a gateway: waiting, progress, outages that the client rides over, and what the client never asks for twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2

from dubstage.client import Connection, DubstageCallError, connect, connect_aio, gateway, operation_steps, rpcs
from dubstage.client.names import step_name
from dubstage.client.operation_steps import Ask, Patience, Pause, begin_steps, wait_steps
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import DubSpec
from tests.unit.client.fake_server import Answer, FakeServer, refuse

NAME = "operations/1"
REQUEST = pb.CreateDubRequest(dub=DubSpec(footage_uri="video.mp4"))
AWAY_OR_FULL = pytest.mark.parametrize(
    ("code", "reason"),
    [(grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE"), (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")],
)


def away(**fields: Any) -> DubstageCallError:
    return DubstageCallError("away", **{"code": "UNAVAILABLE", "retryable": True, **fields})


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of Patience."""
    clock = Clock()
    monkeypatch.setattr(operation_steps, "time", clock)
    return clock


def begun(clock: Clock, *errors: DubstageCallError, patience: Patience, request: pb.CreateDubRequest = REQUEST) -> tuple[str, int]:
    """Run the steps that begin a dub at a gateway that fails with each of `errors` in turn; returns the name and the attempts."""
    steps, waiting, attempts = begin_steps(rpcs.gateway.CREATE_DUB, request, patience), list(errors), 0
    step = next(steps)
    while True:
        try:
            if isinstance(step, Pause):
                clock.sleep(step.seconds)
                step = steps.send(None)
                continue
            attempts += 1
            step = steps.throw(waiting.pop(0)) if waiting else steps.send(operations_pb2.Operation(name=NAME))
        except StopIteration as end:
            return end.value, attempts


@pytest.mark.parametrize("error", [away(reason="MODEL_NOT_READY"), away(reason="BACKEND_UNAVAILABLE"), away(unsent=True)])
def test_unstarted_work_is_retried(error: DubstageCallError, clock: Clock) -> None:
    """Work that cannot have begun is asked for again."""
    assert begun(clock, error, error, patience=Patience(30.0)) == (NAME, 3)


@pytest.mark.parametrize(
    "error",
    [
        away(),
        away(code="DEADLINE_EXCEEDED"),
        away(code="RESOURCE_EXHAUSTED", reason="OVERLOADED"),
        away(code="CANCELLED"),
        away(code="FAILED_PRECONDITION", reason="STORAGE_REFUSED"),
    ],
)
def test_possibly_started_work_not_retried(error: DubstageCallError, clock: Clock) -> None:
    """Work that may have begun or was refused is not asked for again."""
    with pytest.raises(DubstageCallError):
        begun(clock, error, patience=Patience(30.0))


def test_known_request_is_sent_again(clock: Clock) -> None:
    """A request with an id is sent again after a broken connection: the gateway knows it."""
    request = pb.CreateDubRequest(request_id=str(uuid.uuid4()))
    assert begun(clock, away(), away(code="CANCELLED"), patience=Patience(30.0), request=request) == (NAME, 3)
    with pytest.raises(DubstageCallError):
        begun(clock, away(code="FAILED_PRECONDITION", reason="STORAGE_REFUSED"), patience=Patience(30.0), request=request)


def test_patience_ends_with_the_outages_longest_time(clock: Clock) -> None:
    with pytest.raises(DubstageCallError):
        begun(clock, *[away(unsent=True)] * 1000, patience=Patience(0.3))
    assert 100.1 <= clock.now <= 100.3


def test_patience_lasts_through_a_long_outage(clock: Clock) -> None:
    with pytest.raises(DubstageCallError):
        begun(clock, *[away(unsent=True)] * 5000, patience=Patience(7200.0))
    assert clock.now > 7290.0


def test_patience_ends_with_the_callers_time() -> None:
    with pytest.raises(DubstageCallError):
        Patience(30.0, 0.05).pause_s(away(retry_after_s=5.0))


def test_an_answer_ends_the_outage(clock: Clock) -> None:
    patience = Patience(0.35)
    for _ in range(3):
        clock.sleep(patience.pause_s(away()))
        clock.sleep(patience.pause_s(away()))
        patience.answered()


def operation(progress: Message, *, result: Message | None = None, error: int = 0) -> operations_pb2.Operation:
    state = operations_pb2.Operation(name=NAME, done=result is not None or error != 0)
    state.metadata.Pack(progress)
    if result is not None:
        state.response.Pack(result)
    if error:
        state.error.code, state.error.message = error, "in words"
    return state


RUNNING = operation(pb.OperationProgress(step=pb.OPERATION_STEP_TRACK, done=3, fraction=0.2))
ENDED = operation(pb.OperationProgress(step=pb.OPERATION_STEP_DUB, done=9, fraction=1.0), result=pb.DubResult(num_frames=9))
FAILED = operation(pb.OperationProgress(), error=code_pb2.CANCELLED)


def one_after_the_other(*answers: Message | Answer) -> Answer:
    waiting = list(answers)

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        chosen = waiting.pop(0)
        yield from chosen(request, context) if callable(chosen) else [chosen]

    return answer


def dubbed(server: FakeServer, *answers: Message | Answer) -> None:
    server.answers[rpcs.gateway.CREATE_DUB] = [operations_pb2.Operation(name=NAME)]
    server.answers[rpcs.operations.WAIT_OPERATION] = one_after_the_other(*answers)


def test_wait_reports_progress(server: FakeServer, connection: Connection) -> None:
    """Waiting for a dub reports its progress."""
    dubbed(server, RUNNING, ENDED)
    told: list[tuple[str, int]] = []
    dub = gateway.dub(connection, footage="video.mp4", output="dubbed.mp4", seed=4)
    assert dub.name == NAME
    result = dub.wait(on_progress=lambda progress: told.append((step_name(progress.step), progress.done)))
    assert result.num_frames == 9
    assert told == [("track", 3), ("dub", 9)]
    begun = server.received[0]
    assert uuid.UUID(begun.request_id).version == 4
    begun.ClearField("request_id")
    assert begun == pb.CreateDubRequest(dub=DubSpec(footage_uri="video.mp4", output_uri="dubbed.mp4", seed=4))


async def test_the_same_for_asyncio(server: FakeServer) -> None:
    dubbed(server, RUNNING, ENDED)
    told: list[str] = []
    async with connect_aio(server.target) as connection:
        dub = await gateway.dub.aio(connection, footage="video.mp4", output="dubbed.mp4")
        assert (await dub.wait(on_progress=lambda progress: told.append(step_name(progress.step)))).num_frames == 9
        assert told == ["track", "dub"]
        server.answers[rpcs.operations.GET_OPERATION] = [ENDED]
        assert (await dub.state()).done
        await dub.cancel()
        await dub.delete()
    assert [type(request).__name__ for request in server.received[1:]] == [
        "GetOperationRequest",
        "CancelOperationRequest",
        "DeleteOperationRequest",
    ]


@AWAY_OR_FULL
def test_wait_survives_busy_gateway(server: FakeServer, connection: Connection, code: grpc.StatusCode, reason: str) -> None:
    """Waiting rides over a gateway that is away or has too many calls."""
    refused = refuse(code, reason)
    dubbed(server, refused, refused, RUNNING, refused, ENDED)
    assert gateway.dub(connection, footage="video.mp4", output="dubbed.mp4").wait(timeout_s=120).num_frames == 9


@AWAY_OR_FULL
def test_waiting_gives_up_a_gateway_that_stays_so(
    server: FakeServer, connection: Connection, code: grpc.StatusCode, reason: str
) -> None:
    dubbed(server, *[refuse(code, reason)] * 99)
    with pytest.raises(DubstageCallError) as caught:
        gateway.dub(connection, footage="video.mp4", output="dubbed.mp4").wait(outage_s=0.3)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("on_progress", "pause_s"), [(None, 1.0), (lambda progress: None, 0.5)])
def test_wait_pauses_after_early_answer(clock: Clock, on_progress: Any, pause_s: float) -> None:
    """A gateway at which too many calls wait answers at once."""
    steps = wait_steps(NAME, gateway.DUB, Patience(30.0), on_progress)
    asked = next(steps)
    for _ in range(3):
        assert isinstance(asked, Ask)
        pause = steps.send(RUNNING)
        assert isinstance(pause, Pause)
        assert pause.seconds == pytest.approx(pause_s)
        clock.sleep(pause.seconds)
        asked = steps.send(None)
    with pytest.raises(StopIteration) as ended:
        steps.send(ENDED)
    assert ended.value.value.num_frames == 9


def test_wait_polls_again_at_once(clock: Clock) -> None:
    """Waiting asks again at once when the gateway has waited."""
    steps = wait_steps(NAME, gateway.DUB, Patience(30.0), None)
    step = next(steps)
    assert isinstance(step, Ask)
    clock.sleep(operation_steps.POLL_SECONDS)
    assert isinstance(steps.send(RUNNING), Ask)


def test_pause_within_callers_time(clock: Clock) -> None:
    """A pause after an early answer is no longer than the caller's time."""
    steps = wait_steps(NAME, gateway.DUB, Patience(30.0, 0.2), None)
    next(steps)
    step = steps.send(RUNNING)
    assert isinstance(step, Pause)
    clock.sleep(step.seconds)
    with pytest.raises(DubstageCallError, match="has not ended yet"):
        steps.send(None)


def test_waiting_ends_with_a_refusal_for_another_reason(server: FakeServer, connection: Connection) -> None:
    dubbed(server, refuse(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"), ENDED)
    with pytest.raises(DubstageCallError) as caught:
        gateway.dub(connection, footage="video.mp4", output="dubbed.mp4").wait(timeout_s=120)
    assert caught.value.reason == "OPERATION_NOT_FOUND"


def test_cancelled_or_failed_dub_raises(server: FakeServer, connection: Connection) -> None:
    """A dub that is cancelled or fails is an error."""
    dubbed(server, FAILED)
    dub = gateway.dub(connection, footage="video.mp4", output="dubbed.mp4")
    dub.cancel()
    with pytest.raises(DubstageCallError, match="in words") as caught:
        dub.wait()
    assert caught.value.code == "CANCELLED"


def test_wait_timeout_says_dub_continues(server: FakeServer, connection: Connection) -> None:
    """A wait that is too long is an error that says that the dub continues."""
    dubbed(server, *[RUNNING] * 10_000)
    with pytest.raises(DubstageCallError, match="has not ended yet; it goes on") as caught:
        gateway.dub(connection, footage="video.mp4", output="dubbed.mp4").wait(timeout_s=0.2)
    assert (caught.value.code, caught.value.retryable) == ("DEADLINE_EXCEEDED", True)


def test_an_operation_is_known_again_by_its_name(server: FakeServer, connection: Connection) -> None:
    server.answers[rpcs.operations.WAIT_OPERATION] = [
        operation(pb.OperationProgress(step=pb.OPERATION_STEP_TRACK), result=pb.Actor(name="actors/ann"))
    ]
    assert gateway.Operation(connection, NAME, gateway.ENROLMENT).wait().name == "actors/ann"
    with pytest.raises(ValueError, match=r"Actor, not .*DubResult"):
        gateway.Operation(connection, NAME, gateway.DUB).wait()


def test_operations_are_listed_with_their_progress_and_errors(server: FakeServer, connection: Connection) -> None:
    server.answers[rpcs.operations.LIST_OPERATIONS] = [operations_pb2.ListOperationsResponse(operations=[RUNNING, FAILED])]
    running, failed = gateway.list_operations(connection, done=True)
    assert (running.name, running.done, running.error) == (NAME, False, None)
    assert running.progress == pb.OperationProgress(step=pb.OPERATION_STEP_TRACK, done=3, fraction=0.2)
    assert failed.error is not None
    assert failed.error.code == "CANCELLED"
    assert server.received == [operations_pb2.ListOperationsRequest(filter="done=true")]


def test_dubs_are_listed_with_requests(server: FakeServer, connection: Connection) -> None:
    """A list of dubs says what each dub is of."""
    dub = operation(pb.OperationProgress(dub={"footage_uri": "video.mp4"}))
    server.answers[rpcs.gateway.LIST_DUBS] = [pb.ListDubsResponse(dubs=[dub])]
    (state,) = gateway.list_dubs(connection, done=False, newest=True)
    assert (state.name, state.progress.dub.footage_uri) == (NAME, "video.mp4")
    assert server.received == [pb.ListDubsRequest(done=False, order_by=pb.DUB_ORDER_NEWEST)]


def test_wait_gives_up_missing_gateway() -> None:
    """A gateway that is not there is given up."""
    with connect("127.0.0.1:1") as connection, pytest.raises(DubstageCallError) as caught:
        gateway.dub.begin(connection, REQUEST, outage_s=0.2)
    assert caught.value.unsent


def test_an_asyncio_wait_can_be_cancelled(server: FakeServer) -> None:
    dubbed(server, *[RUNNING] * 10_000)

    async def ask() -> None:
        async with connect_aio(server.target) as connection:
            dub = await gateway.dub.aio(connection, footage="video.mp4", output="dubbed.mp4")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(dub.wait(), 0.2)

    asyncio.run(ask())
