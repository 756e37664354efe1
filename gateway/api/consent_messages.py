"""Messages of consent records and of withdrawals to and from the gateway's own types, with validation."""

from __future__ import annotations

from pydantic import ValidationError

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.consents import Withdrawal
from gateway.consent.files import NEEDED, told
from gateway.consent.record import Consent
from services.common.errors import InvalidRequest


def consent_from(message: pb.ConsentRecord) -> Consent:
    """Return a consent record.

    Raises:
        InvalidRequest: a field is missing or wrong; the message names the field.
    """
    values: dict[str, object] = {field: getattr(message, field) for field in NEEDED}
    # What a message does not have is empty in it. A record does not have such a field at all.
    values |= {field: list(names) for field in ("projects", "languages", "footage_sha256") if (names := getattr(message, field))}
    values |= {field: text for field in ("valid_from", "valid_until", "actor") if (text := getattr(message, field))}
    if message.HasField("signature"):
        values["signature"] = {field: getattr(message.signature, field) for field in ("algorithm", "key", "value")}
    if message.HasField("face"):
        values["face"] = {field: getattr(message.face, field) for field in ("network", "embedding")}
    try:
        return Consent.model_validate(values)
    except ValidationError as problem:
        field, said = told(problem)
        raise InvalidRequest(f"consent.{field}: {said}", field=f"consent.{field}") from None


def consent_message(consent: Consent) -> pb.ConsentRecord:
    """Return the message of a consent record."""
    fields = consent.fields()
    signature, face = fields.pop("signature", None), fields.pop("face", None)
    return pb.ConsentRecord(
        **fields,
        signature=pb.ConsentSignature(**signature) if signature is not None else None,
        face=pb.ConsentFace(**face) if face is not None else None,
    )


def withdrawal_message(withdrawal: Withdrawal) -> pb.RevokeConsentResponse:
    """Return the message of a withdrawal."""
    return pb.RevokeConsentResponse(
        record_sha256=withdrawal.record_sha256, withdrawn_at=withdrawal.withdrawn_at, actor_ids=withdrawal.actor_ids
    )
