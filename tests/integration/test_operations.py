"""Operations: cancelled, listed and expired, and begun once for each id of a request."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.longrunning import operations_pb2

from dubstage.client import Connection, DubstageCallError, batch, rpcs, webhook
from dubstage.client import gateway as client
from dubstage.client.names import resource_id, step_name
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api import operations, webhooks
from gateway.media.output import OutputFile
from tests.integration.client_calls import dubbing, enrolment, progress, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import NUM_FRAMES, OTHER, Media, write_short_clip
from tests.refusals import refusal, refused


def test_a_cancelled_dub_stops_and_leaves_nothing(gateway, connection, actor, media, stages, long_footage) -> None:
    before, jobs = stages.blobs(), set((gateway.data / "jobs").iterdir())
    dub = client.dub(connection, **dubbing("cancelled.mp4", footage=long_footage))
    until(lambda: progress(dub.state()).done > 3)
    dub.cancel()
    with pytest.raises(DubstageCallError) as caught:
        dub.wait(timeout_s=60)
    assert caught.value.reason == caught.value.code == "CANCELLED"
    # Cancelling what has ended changes nothing.
    dub.cancel()
    assert dub.state().error.code == "CANCELLED"
    assert not list(media.root.glob("*cancelled*"))
    assert set((gateway.data / "jobs").iterdir()) <= jobs
    assert stages.blobs() == before


def test_operations_are_listed_and_deleted(start_gateway: StartGateway, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    (media.root / "text.mp4").write_text("this is not a video")
    monkeypatch.setattr(operations, "DEFAULT_PAGE", 2)
    running = start_gateway(max_queued_jobs=8)
    with running.connect() as connection:
        dubs = [client.dub(connection, **dubbing(f"list_{n}.mp4", footage="text.mp4")) for n in range(3)]
        names = [dub.name for dub in dubs]
        for dub in dubs:
            with pytest.raises(DubstageCallError):
                dub.wait(timeout_s=60)
        found = list(client.list_operations(connection))
        assert [state.name for state in found] == names
        assert all(state.done and state.error is not None and state.error.reason == "MEDIA_UNSUPPORTED" for state in found)
        assert [state.name for state in client.list_operations(connection, done=True)] == names
        assert list(client.list_operations(connection, done=False)) == []
        newest = operations_pb2.ListOperationsRequest(filter="done = true AND kind = dub AND order = newest")
        first = connection.unary(rpcs.operations.LIST_OPERATIONS, newest)
        newest.page_token = first.next_page_token
        second = connection.unary(rpcs.operations.LIST_OPERATIONS, newest)
        assert [operation.name for page in (first, second) for operation in page.operations] == names[::-1]
        assert second.next_page_token == ""
        assert [state.name for state in client.list_dubs(connection, done=True)] == names
        assert [state.name for state in client.list_dubs(connection, newest=True)] == names[::-1]
        assert list(client.list_dubs(connection, done=False)) == []
        progress = pb.OperationProgress()
        assert second.operations[0].metadata.Unpack(progress)
        assert (progress.dub.footage_uri, progress.dub.output_uri) == ("text.mp4", "list_0.mp4")
        assert progress.create_time.seconds > 0
        dubs[0].delete()
        with refused(match="no operation", code="NOT_FOUND", reason="OPERATION_NOT_FOUND"):
            dubs[0].state()
        with pytest.raises(DubstageCallError, match="filter"):
            connection.unary(rpcs.operations.LIST_OPERATIONS, operations_pb2.ListOperationsRequest(filter="name = x"))


def test_full_gateway_gives_retry_time(start_gateway: StartGateway, long_footage: str) -> None:
    """A full gateway refuses and says when to come back."""
    running = start_gateway(max_concurrent_jobs=1, max_queued_jobs=1)
    with running.connect() as connection:
        dubs = [client.dub(connection, **dubbing(f"full_{n}.mp4", footage=long_footage)) for n in range(2)]
        with refused(match="as many as the gateway takes", reason="OVERLOADED") as caught:
            client.dub(connection, **dubbing("full_3.mp4"))
        assert caught.value.retryable
        assert caught.value.retry_after_s > 0
        with pytest.raises(DubstageCallError, match="has not ended"):
            dubs[1].wait(timeout_s=0.2)
        for dub in reversed(dubs):
            dub.cancel()
        for dub in dubs:
            with pytest.raises(DubstageCallError, match="cancelled"):
                dub.wait(timeout_s=60)


def test_two_operations_never_write_the_same_file(start_gateway: StartGateway, long_footage: str) -> None:
    running = start_gateway()
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("same.mp4", footage=long_footage))
        with refused(match="another operation writes", field="dub.output_uri"):
            client.dub(connection, **dubbing("same.mp4", footage=long_footage, face="largest"))
        dub.cancel()


def test_restarted_gateway_resumes_work(start_gateway, stop_gateway, media) -> None:
    first = start_gateway()
    with first.connect() as connection:
        enrolling = client.enrol(connection, **enrolment("interrupted", footage=OTHER))
        dub = client.dub(connection, **dubbing("interrupted.mp4", footage=OTHER))
        until(lambda: enrolling.state().progress.step != 0)
    stop_gateway(first)
    assert not (media.root / "interrupted.mp4").exists()
    second = start_gateway(data_dir=first.data)
    with second.connect() as connection:
        enrolled = client.Operation(connection, enrolling.name, client.ENROLMENT).wait(timeout_s=300)
        assert resource_id(enrolled.name) == "interrupted"
        assert client.Operation(connection, dub.name, client.DUB).wait(timeout_s=300).num_frames == NUM_FRAMES - 8
        client.erase_actor(connection, "interrupted")
    stop_gateway(second)
    third = start_gateway(data_dir=first.data)
    with third.connect() as connection:
        # Ended operations are still known, except those of the erased person.
        assert client.Operation(connection, dub.name, client.DUB).wait(timeout_s=60).num_frames == NUM_FRAMES - 8
        with pytest.raises(DubstageCallError, match="no operation"):
            client.get_operation(connection, enrolling.name)


@pytest.mark.long
def test_cancelled_waiting_dub_leaves_nothing(start_gateway, stop_gateway, media, stages, carphone) -> None:
    """A cancelled dub that waits to be taken up again leaves nothing."""
    # Three windows: the dubs are stopped when they have begun to learn the person.
    write_short_clip(carphone, media.root / "waits.mp4", 32, times=3)
    before = stages.blobs()
    first = start_gateway(max_concurrent_jobs=2)
    jobs = first.data / "jobs"
    with first.connect() as connection:
        # Two that are not the same job, both interrupted in the middle.
        names = [client.dub(connection, **dubbing(f"waits_{n}.mp4", footage="waits.mp4", seed=n)).name for n in range(2)]
        until(lambda: len({entry.parent for entry in jobs.glob("*/journal/[0-9a-f]*")}) == 2)
    stop_gateway(first)
    assert len({path.name for path in jobs.glob("*/")}) == 2
    # This is the state that a killed gateway leaves beside the output.
    of_output = OutputFile(media.root / "waits_1.mp4")
    (left,) = media.root.glob(".dubstage-*")
    of_output.discard()
    left.write_bytes(b"half a video")
    second = start_gateway(data_dir=first.data, max_concurrent_jobs=1)
    with second.connect() as connection:
        for name, folders in ((names[1], 1), (names[0], 0)):
            dub = client.Operation(connection, name, client.DUB)
            dub.cancel()
            with pytest.raises(DubstageCallError, match="cancelled"):
                dub.wait(timeout_s=60)
            assert len(list(jobs.glob("*/"))) == folders
        assert [(state.name, state.done) for state in client.list_operations(connection)] == [(name, True) for name in names]
    assert not left.exists()
    assert not list(media.root.glob("*waits_*"))
    assert stages.blobs() == before


def test_progress_is_told_about_twice_a_second(connection: Connection, long_footage: str) -> None:
    told: list[tuple[float, str]] = []
    dub = client.dub(connection, **dubbing("progress.mp4", footage=long_footage))

    def tell(state: pb.OperationProgress) -> None:
        told.append((time.monotonic(), step_name(state.step)))
        if len(told) >= 4 and state.step:
            dub.cancel()

    # A dub of which nothing is told comes to its end, and raises nothing.
    with pytest.raises(DubstageCallError, match="cancelled"):
        dub.wait(timeout_s=300, on_progress=tell)
    # A pause of the machine makes the time between two tellings longer, and never shorter. The last one comes at once with the end.
    gaps = [later - earlier for (earlier, _), (later, _) in zip(told[:4], told[1:4], strict=False)]
    assert min(gaps) > 0.3, told
    assert {stage for _, stage in told} & {"track", "dub", "enrol bank", "enrol style"}


@pytest.fixture
def running(start_gateway: StartGateway) -> RunningGateway:
    return start_gateway(webhook_networks="127.0.0.0/8")


@pytest.mark.long
def test_repeated_calls_are_one(running: RunningGateway, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call with the same id is answered with what the first call has made, also while and after that runs."""
    first, second, third, fourth, fifth = (str(uuid.uuid4()) for _ in range(5))
    with running.connect() as connection:
        enrol = {**enrolment("again", footage=OTHER), "request_id": first}
        made = client.enrol(connection, **enrol)
        assert client.enrol(connection, **enrol).name == made.name
        made.wait(timeout_s=300)
        assert client.enrol(connection, **enrol).name == made.name
        dub = {**dubbing("again.mp4", footage=OTHER, actor_id="again"), "request_id": second}
        with ThreadPoolExecutor(4) as threads:
            begun = set(threads.map(lambda _: client.dub(connection, **dub).name, range(4)))
        assert len(begun) == 1
        client.Operation(connection, begun.pop(), client.DUB).wait(timeout_s=300)
        faces = [client.detect_faces(connection, footage=OTHER, request_id=third) for _ in range(2)]
        assert faces[0].name == faces[1].name
        faces[0].wait(timeout_s=300)
        hooks = [webhook.create(connection, "http://127.0.0.1:9/", request_id=fourth) for _ in range(2)]
        assert (hooks[0].name, hooks[0].secret) == (hooks[1].name, hooks[1].secret)
        monkeypatch.setattr(webhooks, "SECRET_AGAIN_S", 0.0)
        late = webhook.create(connection, "http://127.0.0.1:9/", request_id=fourth)
        assert (late.name, late.secret) == (hooks[0].name, "")
        rows = [batch.row("s1", footage=OTHER, speech="speech.wav", output="again_row.mp4", personalize=False)]
        batches = [batch.submit(connection, "again", rows=rows, request_id=fifth).batch for _ in range(2)]
        assert batches[0].create_time == batches[1].create_time
        *_, _ = batch.watch(connection, "again")

        with refused(code="ALREADY_EXISTS", reason="REQUEST_ID_REUSED", field="request_id"):
            client.dub(connection, **dub | {"seed": 1})
        assert refusal(client.detect_faces, connection, footage=OTHER, request_id=second).reason == "REQUEST_ID_REUSED"
        with refused(code="INVALID_ARGUMENT", field="request_id"):
            client.dub(connection, **dub | {"request_id": "again"})
