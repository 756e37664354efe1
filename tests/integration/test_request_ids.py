"""Calls that create something and come again, at a real gateway."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from dubstage.client import batch, webhook
from dubstage.client import gateway as client
from gateway.api import webhooks
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import OTHER, Media
from tests.refusals import refusal, refused


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
