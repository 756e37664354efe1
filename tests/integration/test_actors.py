import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from gateway.actors.receipts import verified
from gateway.actors.store import ActorStore
from gateway.batch.types import manifest_of
from tests.batches import open_store
from tests.contract.ports import free_port
from tests.integration.client_calls import dubbing, enrolment, progress, until
from tests.integration.servers import RunningGateway, RunningStages, StartGateway
from tests.integration.test_rest import Caller
from tests.integration.videos import OTHER
from tests.refusals import refused
from tests.unit.batch.rows import shot_of_row


def test_erasure_removes_and_signs(start_gateway: StartGateway, actor: str, stages: RunningStages) -> None:
    """Erasing a person removes every blob and signs what it removed."""
    running = start_gateway()
    before = stages.blobs()
    with running.connect() as connection:
        made = client.enrol(connection, **enrolment("erased", footage=OTHER)).wait(timeout_s=300)
        assert made.consent.reference == "box 7"
        assert made.num_enrolled_frames >= 12
        assert {resource_id(item.name) for item in client.list_actors(connection)} == {"erased"}
        client.dub(connection, **dubbing("of_erased.mp4", actor_id="erased", footage=OTHER)).wait(timeout_s=300)
        batches = open_store(running.data)
        batches.create(
            manifest_of("night", [shot_of_row(id="s1", footage="/plate.mp4", output="/out.mp4", actor="erased")]), "farm"
        )
        batches.put_thumbnail("night", "s1", b"picture of the person")
        receipt = client.erase_actor(connection, "erased")
        assert batches.thumbnail("night", "s1") is None
        assert not list(client.list_actors(connection))
        with pytest.raises(DubstageCallError, match="no actor"):
            client.erase_actor(connection, "erased")
    assert {item.sha256 for item in made.artefacts} <= set(receipt.erased_sha256)
    assert stages.blobs() <= before
    assert not any(name in stages.blobs() for name in receipt.erased_sha256)
    assert not list((running.data / "jobs").iterdir())
    key = load_pem_public_key(receipt.public_key.encode())
    assert isinstance(key, Ed25519PublicKey)
    assert verified(receipt.receipt.encode(), lambda _: key).erased_sha256 == tuple(receipt.erased_sha256)


def test_picture_is_shown_while_allowed(start_gateway: StartGateway) -> None:
    """A person has a small picture, over gRPC and HTTP, until the consent is withdrawn; an erasure takes the picture along."""
    port = free_port()
    running = start_gateway(http_port=port)
    caller = Caller(port)
    with running.connect() as connection:
        assert client.enrol(connection, **enrolment("seen", footage=OTHER)).wait(timeout_s=300).has_picture
        jpeg = client.get_actor_picture(connection, "seen")
        height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert 60 < min(height, width) <= max(height, width) <= 256
        with caller.open("GET", "/v1/actors/seen:picture") as response:
            assert (response.status, response.read()) == (200, jpeg)
            assert (response.headers["Content-Type"], response.headers["Cache-Control"]) == ("image/jpeg", "private, no-store")
        (listed,) = client.list_actors(connection)
        assert (listed.has_picture, len(listed.SerializeToString()) < 4096) == (True, True), "lists do not carry pictures"
        client.revoke_consent(connection, actor_id="seen")
        with refused(reason="CONSENT_WITHDRAWN"):
            client.get_actor_picture(connection, "seen")
        assert not client.get_actor(connection, "seen").has_picture
        receipt = client.erase_actor(connection, "seen")
        assert hashlib.sha256(jpeg).hexdigest() in receipt.erased_sha256
        assert json.loads(receipt.receipt)["erased"]["picture"] == [hashlib.sha256(jpeg).hexdigest()]
        status, answer = caller("GET", "/v1/actors/seen:picture")
        assert (status, "no actor 'seen'" in answer["error"]["message"]) == (404, True)


def test_concurrent_erasures_same_receipt(start_gateway: StartGateway) -> None:
    """Callers who erase a person at the same moment get the same receipt."""
    running = start_gateway()
    with running.connect() as connection:
        client.enrol(connection, **enrolment("twice", footage=OTHER)).wait(timeout_s=300)
        together = threading.Barrier(8)

        def erase(_: int) -> str:
            together.wait(60)
            try:
                return client.erase_actor(connection, "twice").receipt
            except DubstageCallError as refused:
                # On a busy machine, a caller may come after the end of the others' erasure.
                if "no actor 'twice' is enrolled" not in str(refused):
                    raise
                return ""

        with ThreadPoolExecutor(8) as callers:
            receipts = [receipt for receipt in callers.map(erase, range(8)) if receipt]
    assert len(receipts) > 1
    assert len(set(receipts)) == 1


def test_closed_tab_erases_all_the_same(start_gateway: StartGateway, long_footage: str) -> None:
    """A tab is closed while a dub of the person ends. The person is erased, and the next caller gets the receipt."""
    port = free_port()
    running = start_gateway(http_port=port)
    with running.connect() as connection, ActorStore(running.settings) as store:
        client.enrol(connection, **enrolment("left", footage=OTHER)).wait(timeout_s=300)
        dub = client.dub(connection, **dubbing("of_left.mp4", actor_id="left", footage=long_footage))
        until(lambda: progress(dub.state()).step != 0)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as tab:
            tab.request("DELETE", "/v1/actors/left")
            until(lambda: bool(store.erasures.open()))
        until(lambda: not list(client.list_actors(connection)))
        try:
            assert client.erase_actor(connection, "left").erased_sha256
        except DubstageCallError as refused:
            # On a busy machine, the erasure may end before the gateway sees that the tab is closed.
            if "no actor 'left' is enrolled" not in str(refused):
                raise


def test_erasing_stops_the_work_that_goes_on(start_gateway: StartGateway) -> None:
    running = start_gateway()
    with running.connect() as connection:
        client.enrol(connection, **enrolment("busy", footage=OTHER)).wait(timeout_s=300)
        dub = client.dub(connection, **dubbing("of_busy.mp4", actor_id="busy", footage=OTHER))
        client.erase_actor(connection, "busy")
        with pytest.raises(DubstageCallError, match="no operation"):
            dub.wait(timeout_s=60)


def test_erasing_ends_the_live_streams_of_the_person(start_gateway, samples) -> None:
    speech, rate = samples
    goes_on = threading.Event()

    def spoken() -> Iterator[npt.NDArray[np.float32]]:
        yield from (speech[first : first + rate // 50] for first in range(0, len(speech), rate // 50))
        # The stream does not end by itself.
        goes_on.wait(600)

    running = start_gateway()
    with running.connect() as connection:
        client.enrol(connection, **enrolment("shown", footage=OTHER)).wait(timeout_s=300)
        stream = client.live(connection, spoken(), actor_id="shown", sample_rate_hz=rate)
        next(stream)
        client.erase_actor(connection, "shown")
        with pytest.raises(DubstageCallError) as caught:
            list(stream)
        goes_on.set()
    assert caught.value.reason in ("ACTOR_NOT_READY", "ARTEFACT_NOT_FOUND")


def test_actors_listed_in_pages(connection: Connection, actor: str) -> None:
    """Actors come page by page in the order of their ids."""
    # The gateway serves other test files too, and may hold their actors.
    listed = {resource_id(each.name): each for each in client.list_actors(connection, page_size=1)}
    assert list(listed) == sorted(listed)
    assert client.get_actor(connection, actor) == listed[actor]
    with pytest.raises(DubstageCallError, match="page_size: -1"):
        list(client.list_actors(connection, page_size=-1))


@pytest.mark.parametrize("wrong", ["Driver", "a/b", "-a", "a" * 64])
def test_an_id_that_is_none_is_refused(gateway: RunningGateway, wrong: str) -> None:
    with gateway.connect() as connection, refused(field="actor_id"):
        client.enrol(connection, **enrolment(wrong))


def test_a_taken_id_is_refused(gateway: RunningGateway, actor: str) -> None:
    with gateway.connect() as connection, pytest.raises(DubstageCallError, match="erase it first"):
        client.enrol(connection, **enrolment(actor))
