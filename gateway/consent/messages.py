"""Consent records from and to messages of the contract."""

from __future__ import annotations

from pydantic import ValidationError

from dubstage.gateway.v1 import consent_pb2 as pb
from gateway.consent.files import NEEDED, field_and_reason
from gateway.consent.record import Consent
from services.common.errors import InvalidRequestError


def consent_from(message: pb.ConsentRecord) -> Consent:
    """Return a consent record.

    Raises:
        InvalidRequestError: a field is missing or wrong; the message names the field.
    """
    values: dict[str, object] = {field: getattr(message, field) for field in NEEDED}
    # A field that is not given is empty in the message, and is missing in the record.
    values |= {field: list(names) for field in ("projects", "languages", "footage_sha256") if (names := getattr(message, field))}
    values |= {field: text for field in ("valid_from", "valid_until", "actor") if (text := getattr(message, field))}
    if message.HasField("signature"):
        values["signature"] = {field: getattr(message.signature, field) for field in ("algorithm", "key", "value")}
    if message.HasField("face"):
        values["face"] = {field: getattr(message.face, field) for field in ("network", "embedding")}
    try:
        return Consent.model_validate(values)
    except ValidationError as problem:
        field, said = field_and_reason(problem)
        raise InvalidRequestError(f"consent.{field}: {said}", field=f"consent.{field}") from None


def consent_message(consent: Consent) -> pb.ConsentRecord:
    """Return the message of a consent record."""
    fields = consent.fields()
    signature, face = fields.pop("signature", None), fields.pop("face", None)
    return pb.ConsentRecord(
        **fields,
        signature=pb.ConsentSignature(**signature) if signature is not None else None,
        face=pb.ConsentFace(**face) if face is not None else None,
    )
