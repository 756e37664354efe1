"""What the audit log records of CreateDub."""

from __future__ import annotations

import json

from dubstage.gateway.v1alpha1 import gateway_pb2
from gateway.actors.store import ActorStore
from gateway.api.audit_of_operations import happening_of
from gateway.api.consent_messages import consent_message
from gateway.api.operation_messages import DUB
from gateway.consent.record import digest_of
from gateway.operations.store import OperationRecord
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]

OTHER = CONSENT.model_copy(update={"subject": "Bob"})


def test_a_dub_with_a_reference_is_recorded_with_the_records_of_both_people(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry
) -> None:
    actors.create("ann", method="ugc", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    request = gateway_pb2.CreateDubRequest(actor_id="ann", reference_consent=consent_message(OTHER)).SerializeToString()
    record = OperationRecord(
        number=1, name="operations/1", kind=DUB, actor_id="ann", output="", created_at="2026-02-01T00:00:00Z", request=request
    )
    happening = happening_of(record)
    assert happening is not None
    actors.audit.record(happening)
    *_, entry = (json.loads(row.line) for row in actors.audit.lines())
    assert sorted(entry["consents"]) == sorted([digest_of(CONSENT), digest_of(OTHER)])
