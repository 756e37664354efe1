"""Entries of the audit log for the operations of CreateDub and CreateActor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.rpc import status_pb2  # type: ignore[import-untyped]

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.api.messages import consent_from
from gateway.api.operations import ACTOR, DUB
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.work import watermark_details
from gateway.consent.record import digest_of
from gateway.operations.store import OperationRecord
from gateway.provenance.claim import FilmWatermark
from services.common.errors import Cancelled
from services.common.server import error_status

_BEGUN: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_BEGUN, ACTOR: EventKind.ENROLMENT_BEGUN}
_FAILED: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_FAILED, ACTOR: EventKind.ENROLMENT_FAILED}
_CANCELLED: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_CANCELLED, ACTOR: EventKind.ENROLMENT_CANCELLED}


def audit_event_of(record: OperationRecord) -> AuditEvent | None:
    """Return what is recorded of an operation that was submitted or has ended; None: nothing.

    The actor of an enrolment that succeeds is recorded with the actor's own rows.
    """
    if record.error is not None:
        return _failed(record)
    if not record.done:
        return _begun(record)
    if record.kind != DUB or record.response is None:
        return None
    result = pb.DubResult.FromString(record.response)
    return AuditEvent(
        event=EventKind.DUB_ENDED,
        work=record.name,
        outputs=(result.media_sha256,) if result.media_sha256 else (),
        details=watermark_details(FilmWatermark(on=result.watermark_on, payload=result.watermark)),
    )


def _begun(record: OperationRecord) -> AuditEvent:
    consents = []
    message: pb.CreateDubRequest | pb.CreateActorRequest
    if record.kind == DUB:
        message = pb.CreateDubRequest.FromString(record.request)
        if message.HasField("reference_consent"):
            consents.append(message.reference_consent)
    else:
        message = pb.CreateActorRequest.FromString(record.request)
    if message.HasField("consent"):
        consents.append(message.consent)
    return AuditEvent(
        event=_BEGUN[record.kind],
        work=record.name,
        actor_id=record.actor_id,
        own_record=record.kind == DUB or not message.HasField("consent"),
        consents=tuple(digest_of(consent_from(consent)) for consent in consents),
        details={"method": message.method} if message.method else {},
    )


def _failed(record: OperationRecord) -> AuditEvent:
    found = error_status.from_status(status_pb2.Status.FromString(record.error or b""))
    if isinstance(found, Cancelled):
        return AuditEvent(event=_CANCELLED[record.kind], work=record.name)
    reason = found.reason if found is not None else ""
    return AuditEvent(event=_FAILED[record.kind], work=record.name, details={"reason": reason})
