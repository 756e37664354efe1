from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from tests.integration.conftest import NUM_FRAMES, OTHER, Media, RunningGateway, RunningStages, StartGateway, dubbing, enrolment


def operation(connection: Connection, name: str) -> Any:
    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    return connection.unary(stub.GetOperation, operations_pb2.GetOperationRequest(name=name))


def progress(connection: Connection, name: str) -> pb.DubProgress:
    message = pb.DubProgress()
    operation(connection, name).metadata.Unpack(message)
    return message


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def blobs(stages: RunningStages) -> set[str]:
    return {path.name for path in stages.artefacts.rglob("*") if path.is_file()}


def test_a_cancelled_dub_stops_and_leaves_nothing(gateway: RunningGateway, actor: str, media: Media, stages: RunningStages) -> None:
    before = blobs(stages)
    with gateway.connect() as connection:
        name = client.create_dub(connection, dubbing("cancelled.mp4"))
        until(lambda: progress(connection, name).frames_done > 3)
        client.cancel(connection, name)
        begin = time.monotonic()
        with pytest.raises(DubstageCallError) as caught:
            client.wait(connection, name, pb.DubResult, timeout_s=30)
        assert time.monotonic() - begin < 10
        assert caught.value.reason == caught.value.code == "CANCELLED"
        # Cancelling what has ended changes nothing.
        client.cancel(connection, name)
        assert operation(connection, name).error.code == 1
    assert not list(media.root.glob("*cancelled*"))
    assert not list((gateway.data / "jobs").iterdir())
    assert blobs(stages) == before


def test_operations_are_listed_page_by_page_and_deleted(start_gateway: StartGateway, media: Media) -> None:
    (media.root / "text.mp4").write_text("this is not a film")
    running = start_gateway(max_queued_jobs=8)
    with running.connect() as connection:
        stub = operations_pb2_grpc.OperationsStub(connection.channel)
        names = [client.create_dub(connection, dubbing(f"list_{n}.mp4", footage_uri="text.mp4")) for n in range(3)]
        for name in names:
            with pytest.raises(DubstageCallError):
                client.wait(connection, name, pb.DubResult, timeout_s=20)
        found: list[str] = []
        token = ""
        while True:
            request = operations_pb2.ListOperationsRequest(page_size=2, page_token=token, filter="done = true")
            page: Any = connection.unary(stub.ListOperations, request)
            found.extend(item.name for item in page.operations)
            token = page.next_page_token
            if not token:
                break
        assert found == names
        connection.unary(stub.DeleteOperation, operations_pb2.DeleteOperationRequest(name=names[0]))
        with pytest.raises(DubstageCallError, match="no operation") as caught:
            operation(connection, names[0])
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "OPERATION_NOT_FOUND")
        with pytest.raises(DubstageCallError, match="filter"):
            connection.unary(stub.ListOperations, operations_pb2.ListOperationsRequest(filter="name = x"))


def test_a_full_gateway_refuses_and_says_when_to_come_back(start_gateway: StartGateway) -> None:
    running = start_gateway(max_concurrent_jobs=1, max_queued_jobs=1)
    with running.connect() as connection:
        names = [client.create_dub(connection, dubbing(f"full_{n}.mp4", footage_uri=OTHER)) for n in range(2)]
        with pytest.raises(DubstageCallError, match="as many as the gateway takes") as caught:
            client.create_dub(connection, dubbing("full_3.mp4"))
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.retryable
        assert caught.value.retry_after_s > 0
        with pytest.raises(DubstageCallError, match="has not ended"):
            client.wait(connection, names[1], pb.DubResult, timeout_s=0.2)
        for name in reversed(names):
            client.cancel(connection, name)
        for name in names:
            with pytest.raises(DubstageCallError, match="cancelled"):
                client.wait(connection, name, pb.DubResult, timeout_s=20)


def test_two_operations_never_write_the_same_file(start_gateway: StartGateway) -> None:
    running = start_gateway()
    with running.connect() as connection:
        name = client.create_dub(connection, dubbing("same.mp4", footage_uri=OTHER))
        with pytest.raises(DubstageCallError, match="another operation writes") as caught:
            client.create_dub(connection, dubbing("same.mp4", footage_uri=OTHER, face="largest"))
        assert caught.value.field == "output_uri"
        client.cancel(connection, name)


def test_a_restarted_gateway_goes_on_with_what_was_interrupted(
    start_gateway: StartGateway, stop_gateway: Callable[[RunningGateway], None], media: Media
) -> None:
    first = start_gateway()
    with first.connect() as connection:
        enrolling = client.create_actor(connection, enrolment("interrupted", footage=OTHER))
        dub = client.create_dub(connection, dubbing("interrupted.mp4", footage_uri=OTHER))
        time.sleep(0.3)
    stop_gateway(first)
    assert not (media.root / "interrupted.mp4").exists()
    second = start_gateway(data_dir=first.data)
    with second.connect() as connection:
        assert client.wait(connection, enrolling, pb.Actor, timeout_s=60).actor_id == "interrupted"
        assert client.wait(connection, dub, pb.DubResult, timeout_s=60).num_frames == NUM_FRAMES - 8
        client.erase_actor(connection, "interrupted")
    stop_gateway(second)
    third = start_gateway(data_dir=first.data)
    with third.connect() as connection:
        # What has ended is known still; what concerned the erased person is not.
        assert client.wait(connection, dub, pb.DubResult, timeout_s=5).num_frames == NUM_FRAMES - 8
        with pytest.raises(DubstageCallError, match="no operation"):
            operation(connection, enrolling)
