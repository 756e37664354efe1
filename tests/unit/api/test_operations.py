"""Tests of the audit of RPCs: every RPC of the gateway is classified as audited or as reading only, and CreateDub is recorded."""

from __future__ import annotations

import asyncio
import json

import pytest

from dubstage.gateway.v1 import gateway_pb2
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.batches import BATCH
from gateway.api.operations import ACTOR, DUB, FACES, ListFilter, audit_event_of, list_filter_from, num_calling
from gateway.audit.entries import EventKind
from gateway.consent.messages import consent_message
from gateway.consent.record import digest_of
from gateway.operations.store import OperationRecord
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.contracts import GATEWAY
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]

OTHER = CONSENT.model_copy(update={"subject": "Bob"})
READS = {
    "DubService.EstimateDub",
    "DubService.ListDubs",
    "ActorService.GetActor",
    "ActorService.GetActorPicture",
    "ActorService.ListActors",
    "DubService.DetectFaces",
    "BatchService.GetBatch",
    "BatchService.GetShot",
    "BatchService.ListBatches",
    "BatchService.ListShots",
    "BatchService.WatchBatch",
    "BatchService.GetReport",
    "MediaService.UploadFile",
    "MediaService.GetUpload",
    "MediaService.ListUploads",
    "MediaService.DeleteUpload",
    "MediaService.DownloadFile",
    "MediaService.SignUpload",
    "MediaService.FinishUpload",
    "MediaService.SignDownload",
    "WebhookService.GetWebhook",
    "WebhookService.ListWebhooks",
    "WebhookService.ListWebhookDeliveries",
    "Operations.ListOperations",
    "Operations.GetOperation",
    "Operations.WaitOperation",
}
LEAVES = {
    "ActorService.CreateActor": {
        EventKind.ENROLMENT_BEGUN,
        EventKind.ACTOR_CREATED,
        EventKind.ENROLMENT_FAILED,
        EventKind.ENROLMENT_CANCELLED,
    },
    "ActorService.EraseActor": {EventKind.ACTOR_ERASED},
    "ActorService.RevokeConsent": {EventKind.CONSENT_WITHDRAWN},
    "DubService.CreateDub": {EventKind.DUB_BEGUN, EventKind.DUB_ENDED, EventKind.DUB_FAILED, EventKind.DUB_CANCELLED},
    "DubService.Live": {EventKind.LIVE_BEGUN, EventKind.LIVE_ENDED, EventKind.LIVE_FAILED, EventKind.LIVE_CANCELLED},
    "BatchService.SubmitBatch": {EventKind.BATCH_SUBMITTED},
    "BatchService.CancelBatch": {EventKind.BATCH_CANCELLED},
    "BatchService.RetryBatch": {EventKind.BATCH_RETRIED},
    "BatchService.DeleteBatch": {EventKind.BATCH_REMOVED},
    "BatchService.ReviewShot": {EventKind.SHOT_REVIEWED},
    "WebhookService.CreateWebhook": {EventKind.WEBHOOK_CREATED},
    "WebhookService.DeleteWebhook": {EventKind.WEBHOOK_REMOVED},
    "WebhookService.ReplayWebhookDeliveries": {EventKind.WEBHOOK_REPLAYED},
    "Operations.CancelOperation": {EventKind.OPERATION_CANCELLED},
    "Operations.DeleteOperation": {EventKind.OPERATION_REMOVED},
}
"""`tests/integration/test_audit.py` calls each of these RPCs, and looks for the first entry that each leaves."""
OF_COMMANDS = {
    EventKind.BATCH_DELIVERED,
    EventKind.BATCH_POSTED,
    EventKind.BACKUP_WRITTEN,
    EventKind.BACKUP_RESTORED,
    EventKind.SETTINGS,
}


def test_reference_dub_records_both_people(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """A dub with a reference is recorded with the records of both people."""
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    request = gateway_pb2.CreateDubRequest(
        dub={"actor": "actors/ann", "reference_consent": consent_message(OTHER)}
    ).SerializeToString()
    record = OperationRecord(
        number=1, name="operations/1", kind=DUB, actor_id="ann", output="", created_at="2026-02-01T00:00:00Z", request=request
    )
    event = audit_event_of(record)
    assert event is not None
    actors.audit.record(event)
    *_, entry = (json.loads(row.line) for row in actors.audit.lines())
    assert sorted(entry["consents"]) == sorted([digest_of(CONSENT), digest_of(OTHER)])


def test_scene_is_recorded_alike_everywhere(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """A scene of an operation and a scene of a command have the same actors and consent records in the audit log."""
    third = CONSENT.model_copy(update={"subject": "Cleo"})
    for number, (name, own) in enumerate((("ann", CONSENT), ("bob", OTHER))):
        actors.create(
            name, method="dubstage", enrolled=learned(blobs, name, geometry), footage_sha256=f"{number}" * 64, consent=own
        )
    lines = [{"actor": "actors/ann", "consent": consent_message(third)}, {"actor": "actors/bob"}, {"actor": "actors/ann"}]
    request = gateway_pb2.CreateDubRequest(dub={"lines": lines, "method": "dubstage"}).SerializeToString()
    record = OperationRecord(
        number=1, name="operations/1", kind=DUB, actor_id="ann", output="", created_at="2026-02-01T00:00:00Z", request=request
    )
    event = audit_event_of(record)
    assert event is not None
    actors.audit.record(event)

    async def command() -> None:
        async with JobLedger(actors, ["ann", "bob"], consents=[third, CONSENT, None, OTHER, None, CONSENT]).recorded("dubstage"):
            pass

    asyncio.run(command())
    operation, begun, ended = actors.audit.newest(3)
    for field in ("faces", "consents", "actor_ids"):
        assert operation[field] == begun[field] == ended[field]
    assert operation["consents"] == sorted(digest_of(one) for one in (CONSENT, OTHER, third))
    assert sorted(operation["actor_ids"]) == ["ann", "bob"]


def test_every_rpc_of_the_contracts_is_classified() -> None:
    services = [service for module in GATEWAY for service in module.DESCRIPTOR.services_by_name.values()]
    rpcs = {f"{service.name}.{method.name}" for service in services for method in service.methods}
    assert rpcs == READS | LEAVES.keys()
    assert not READS & LEAVES.keys()


def test_every_event_has_its_rpc_or_command() -> None:
    assert set(EventKind) == OF_COMMANDS.union(*LEAVES.values())


def test_filters_of_lists() -> None:
    """Conditions of a list's filter are read in any order; unknown and contradictory ones are refused."""
    assert list_filter_from("") == ListFilter()
    assert list_filter_from("order = newest AND done=false AND kind = dub") == ListFilter(done=False, kind=DUB, newest=True)
    for wrong in ("done", "kind=person", "done=true done=false", "done=true AND done=false", "done=true AND", "AND"):
        with pytest.raises(InvalidRequestError, match="is not understood"):
            list_filter_from(wrong)


@pytest.mark.parametrize(("stage", "number"), [("audio", 6), ("face", 6), ("motion", 6), ("texture", 4), ("render", 4)])
def test_lists_of_faces_need_no_renderer(stage: str, number: int) -> None:
    """Work is counted for the stages that it calls, so that an autoscaler lets the others rest."""
    assert num_calling(stage, {DUB: 1, ACTOR: 2, FACES: 2, BATCH: 1}) == number
    assert num_calling(stage, {}) == 0
