"""Every door of a gateway that begins work with a person checks the consent, and running work ends with the consent."""

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import descriptor_pool

from dubstage.client import Connection, DubstageCallError, batch
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from gateway.api.server import SERVICES
from gateway.consent.keys import signed
from gateway.consent.record import Consent, digest_of
from tests.integration.client_calls import dubbing, enrolment, give, until, with_consent
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import write_short_clip
from tests.refusals import refused
from tests.unit.consent.records import STUDIO, allowed, faults, of_footage, record, trusted

FOOTAGE = "consented.mp4"
NIGHT = {"project": "night", "language": "de"}

ELSEWHERE = {
    # A picture is refused while the consent allows no work (test_actors.py).
    "ActorService": ("GetActor", "GetActorPicture", "ListActors", "EraseActor", "RevokeConsent"),
    # Shows who is in a video, and makes nothing of the person.
    "DubService": ("DetectFaces", "ListDubs"),
    # The worker of retried shots checks the records again (tests/unit/batch/test_worker_requests.py).
    "BatchService": (
        *("GetBatch", "ListBatches", "GetShot", "ListShots", "WatchBatch", "ReviewShot", "CancelBatch", "RetryBatch"),
        *("DeleteBatch", "GetReport"),
    ),
    "MediaService": (
        *("UploadFile", "GetUpload", "ListUploads", "DeleteUpload", "DownloadFile", "SignUpload", "FinishUpload"),
        "SignDownload",
    ),
    "WebhookService": (
        *("CreateWebhook", "GetWebhook", "ListWebhooks", "DeleteWebhook", "ListWebhookDeliveries"),
        "ReplayWebhookDeliveries",
    ),
    "Operations": ("ListOperations", "GetOperation", "DeleteOperation", "CancelOperation", "WaitOperation"),
}
"""RPCs that begin no work with a person."""


@dataclass(frozen=True)
class Place:
    """A gateway that requires signed records, with an actor."""

    running: RunningGateway
    media: Path

    def give(self, actor_id: str, consent: Consent | None) -> None:
        give(self.running.data, actor_id, consent)

    def file(self, consent: Consent | None) -> str:
        if consent is None:
            return ""
        (self.media / "record.json").write_text(json.dumps(consent.fields()))
        return "record.json"


@pytest.fixture(scope="module")
def place(module_gateway, media, carphone, tmp_path_factory) -> Place:
    write_short_clip(carphone, media.root / FOOTAGE, 36)
    keys = trusted(tmp_path_factory.mktemp("trusted") / "keys")
    running = module_gateway(require_consent="signed", consent_keys=keys)
    with running.connect() as connection:
        client.enrol(connection, **person("ann", allowed(media.root / FOOTAGE))).wait(timeout_s=300)
    return Place(running, media.root)


def person(actor_id: str, consent: Consent | None, project: str = "night") -> dict[str, Any]:
    fields = consent.fields() if consent is not None else None
    return {**enrolment(actor_id, footage=FOOTAGE), "consent": fields, "project": project}


def video(consent: Consent | None = None, **fields: Any) -> dict[str, Any]:
    return dubbing(fields.pop("output", "doors.mp4"), **{"footage": FOOTAGE, **NIGHT, **with_consent(consent), **fields})


def record_of(place: Place, footage: str, reference: str) -> Consent:
    return signed(record(reference=reference, **of_footage(place.media / footage)), STUDIO)


def create_actor(place: Place, connection: Connection, consent: Consent | None) -> None:
    client.enrol(connection, **person("another", consent))


def create_dub(place: Place, connection: Connection, consent: Consent | None) -> None:
    client.dub(connection, **video(consent))


def create_dub_of_actor(place: Place, connection: Connection, consent: Consent | None) -> None:
    place.give("ann", consent)
    client.dub(connection, **video(actor_id="ann"))


def create_dub_with_reference(place: Place, connection: Connection, consent: Consent | None) -> None:
    fields = {"reference_consent": consent.fields()} if consent is not None else {}
    mine = allowed(place.media / FOOTAGE)
    client.dub(connection, **video(mine, method="hetero", reference=FOOTAGE, **fields))


def estimate(place: Place, connection: Connection, consent: Consent | None) -> None:
    client.estimate(connection, client.dub.request(**video(consent)).dub)


def live(place: Place, connection: Connection, consent: Consent | None) -> None:
    place.give("ann", consent)
    list(client.live(connection, [], actor_id="ann", sample_rate_hz=16000, **NIGHT))


DOORS: dict[str, tuple[Callable[[Place, Connection, Consent | None], None], ...]] = {
    "ActorService.CreateActor": (create_actor,),
    "DubService.CreateDub": (create_dub, create_dub_of_actor, create_dub_with_reference),
    "DubService.EstimateDub": (estimate,),
    "DubService.Live": (live,),
}
"""Requests that begin work with a person, by RPC. The check of batches reports mistakes by rows, and has a test of its own."""


def test_every_rpc_checks_consent() -> None:
    """Every RPC is a door or begins no work."""
    pool = descriptor_pool.Default()
    found = {f"{name.rpartition('.')[2]}.{method.name}" for name in SERVICES for method in pool.FindServiceByName(name).methods}
    elsewhere = {f"{service}.{rpc}" for service, rpcs in ELSEWHERE.items() for rpc in rpcs}
    assert found == set(DOORS) | {"BatchService.SubmitBatch"} | elsewhere


@pytest.mark.parametrize(
    ("door", "fault"),
    [
        (door, name)
        for doors in DOORS.values()
        for door in doors
        for name, fault in sorted(faults().items())
        # An enrolment has no speech, so that no language can be wrong.
        if not (fault.of_language and door is create_actor)
        # The actor's row of the database binds the record to the actor.
        if not (fault.of_requests and door in (create_dub_of_actor, live))
    ],
)
def test_every_rpc_refuses_faulty_records(door, fault, place) -> None:
    """Each door refuses each faulty record with its own reason."""
    found = faults()[fault]
    with place.running.connect() as connection:
        if found.withdrawn and found.record is not None:
            client.revoke_consent(connection, record_sha256=digest_of(found.record))
        with refused(code="FAILED_PRECONDITION", reason=found.reason) as caught:
            door(place, connection, found.record)
        assert found.says in caught.value.message
        assert not list(client.list_operations(connection, done=False))


@pytest.mark.parametrize("fault", sorted(faults()))
def test_batch_names_row_of_record(fault: str, place: Place) -> None:
    """The door of batches tells each faulty record by its row."""
    found = faults()[fault]
    row = batch.row("a", footage=FOOTAGE, speech="speech.wav", output="batch.mp4", consent=place.file(found.record), **NIGHT)
    with place.running.connect() as connection:
        if found.withdrawn and found.record is not None:
            client.revoke_consent(connection, record_sha256=digest_of(found.record))
        with pytest.raises(DubstageCallError, match="consent_uri: ") as caught:
            batch.submit(connection, "doors", rows=[row])
        assert found.says in caught.value.message
        assert caught.value.violation_reasons == (found.reason,)
        checked = batch.submit(connection, "doors", rows=[row], validate_only=True)
        assert [mistake.reason for mistake in checked.mistakes] == [found.reason]
        assert not list(batch.list_batches(connection))


def test_covering_record_is_accepted(place: Place) -> None:
    """A record that covers the work opens the doors."""
    place.give("ann", allowed())
    with place.running.connect() as connection:
        client.dub(connection, **video(actor_id="ann", output="opened.mp4")).wait(timeout_s=300)
        assert list(client.live(connection, [], actor_id="ann", sample_rate_hz=16000, **NIGHT)) == []
        with pytest.raises(DubstageCallError) as caught:
            client.dub(connection, **video(actor_id="ann", language=""))
        assert (caught.value.reason, "names no language" in caught.value.message) == ("CONSENT_OUT_OF_SCOPE", True)


@pytest.mark.parametrize("wrong", [{"signature": {"algorithm": "none"}}, {"valid_until": "2027-01-31"}, {"languages": ["german!"]}])
def test_malformed_record_names_field(wrong: dict[str, Any], place: Place) -> None:
    with place.running.connect() as connection, refused(reason="INVALID_REQUEST") as caught:
        client.dub(connection, **video(consent=None) | {"consent": {**record().fields(), **wrong}})
    assert caught.value.field.removeprefix("dub.").startswith(f"consent.{next(iter(wrong))}")


def test_withdrawal_ends_live_stream(place: Place, samples: tuple[npt.NDArray[np.float32], int]) -> None:
    speech, rate = samples
    goes_on = threading.Event()
    mine = signed(record(reference="stream"), STUDIO)
    place.give("ann", mine)

    def spoken() -> Iterator[npt.NDArray[np.float32]]:
        yield from (speech[first : first + rate // 50] for first in range(0, len(speech), rate // 50))
        # The stream does not end by itself.
        goes_on.wait(600)

    with place.running.connect() as connection:
        assert client.get_actor(connection, "ann").consent_problem == ""
        stream = client.live(connection, spoken(), actor_id="ann", sample_rate_hz=rate, **NIGHT)
        next(stream)
        done = client.revoke_consent(connection, actor_id="ann")
        assert (done.record_sha256, list(done.actors)) == (digest_of(mine), ["actors/ann"])
        with pytest.raises(DubstageCallError) as caught:
            list(stream)
        goes_on.set()
        assert caught.value.reason == "CONSENT_WITHDRAWN"
        assert done.revoke_time.ToDatetime(datetime.UTC).isoformat() in client.get_actor(connection, "ann").consent_problem


@pytest.mark.parametrize("whose", ["request", "actor"])
def test_withdrawal_stops_running_dub(whose: str, place: Place, long_footage: str) -> None:
    mine = record_of(place, long_footage, f"dub of {whose}")
    place.give("ann", mine)
    asked = video(None, actor_id="ann") if whose == "actor" else video(mine)
    with place.running.connect() as connection:
        dub = client.dub(connection, **asked | {"output": "stopped.mp4", "footage": long_footage})
        until(lambda: bool(list((place.running.data / "jobs").iterdir())))
        client.revoke_consent(connection, record_sha256=digest_of(mine))
        with pytest.raises(DubstageCallError) as caught:
            dub.wait(timeout_s=300)
    assert caught.value.reason == "CONSENT_WITHDRAWN"
    assert not (place.media / "stopped.mp4").exists()
    assert not list((place.running.data / "jobs").iterdir())


def test_a_withdrawal_stops_an_enrolment(place: Place, long_footage: str) -> None:
    mine = record_of(place, long_footage, "enrolment")
    with place.running.connect() as connection:
        enrolling = client.enrol(connection, **person("stopped", mine) | {"footage": long_footage})
        until(lambda: bool(list((place.running.data / "jobs").iterdir())))
        client.revoke_consent(connection, record_sha256=digest_of(mine))
        with refused(reason="CONSENT_WITHDRAWN"):
            enrolling.wait(timeout_s=300)
        assert {resource_id(actor.name) for actor in client.list_actors(connection)} == {"ann"}
    assert not list((place.running.data / "jobs").iterdir())


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, "actor"), ({"actor_id": "ann", "record_sha256": "0" * 64}, "actor"), ({"record_sha256": "x"}, "record_sha256")],
)
def test_a_withdrawal_names_one_record(fields: dict[str, str], field: str, place: Place) -> None:
    with place.running.connect() as connection:
        with pytest.raises(DubstageCallError) as caught:
            client.revoke_consent(connection, **fields)
        assert caught.value.field.removeprefix("dub.") == field
        with refused(reason="ACTOR_NOT_FOUND"):
            client.revoke_consent(connection, actor_id="nobody")


def test_gateway_without_trust_anchors(start_gateway: StartGateway) -> None:
    """A gateway without any trusted key does not start."""
    from services.common.errors import InvalidRequestError

    with pytest.raises(InvalidRequestError, match="needs trusted keys"):
        start_gateway(require_consent="signed")
