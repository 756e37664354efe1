"""Errors of the tree (errors.py) to and from google.rpc.Status, by the table of dubstage.error_kinds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from dubstage.client.errors import StatusDetails, is_too_large, read_details, status_of
from dubstage.error_kinds import DOMAIN, KINDS, REASON_OF_CODE, Details
from services.common import errors

# A status travels in HTTP/2 trailers, and gRPC refuses trailers above about 8 KiB. The trailers hold the text three times, once
# with three characters per byte.
_MAX_TEXT_BYTES = 1000
_MAX_NAME_BYTES = 300
_MAX_VIOLATIONS_BYTES = 2400
# Text of grpc.aio for a call whose peer went away during a write.
_BROKEN_CALL = "Internal error from Core"


@dataclass(frozen=True, slots=True)
class DetailsCodec:
    """Conversion of one kind of error: `pack` makes the details, `unpack` reads constructor arguments back from them."""

    pack: Callable[[Any], list[Message]]
    unpack: Callable[[StatusDetails], dict[str, Any]]


def _pack_field(error: errors.RequestError) -> list[Message]:
    bad, left = error_details_pb2.BadRequest(), _MAX_VIOLATIONS_BYTES
    for (field, text), reason in zip_longest(error.violations or ((error.field, error.message),), error.reasons):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_short(field), description=_cut(text, _MAX_TEXT_BYTES), reason=reason
        )
        left -= violation.ByteSize()
        if left < 0 and bad.field_violations:
            break
        bad.field_violations.append(violation)
    return [bad]


def _unpack_field(details: StatusDetails) -> dict[str, Any]:
    if not details.violations:
        return {}
    several = [(field, description) for field, description, _ in details.violations]
    reasons = [reason for _, _, reason in details.violations]
    return {
        "field": several[0][0],
        "violations": several if len(several) > 1 else (),
        "reasons": reasons if any(reasons) else (),
    }


def _pack_resource(error: errors.ResourceError | errors.ActorNotFoundError) -> list[Message]:
    kinds: dict[type[errors.DubstageError], str] = {
        errors.ActorNotFoundError: "actor",
        errors.ModelNotFoundError: "model",
        errors.OperationNotFoundError: "operation",
        errors.BatchNotFoundError: "batch",
        errors.WebhookNotFoundError: "webhook",
    }
    kind = kinds.get(type(error), "artefact")
    return [error_details_pb2.ResourceInfo(resource_type=kind, resource_name=_short(error.resource))]


def _unpack_resource(details: StatusDetails) -> dict[str, Any]:
    return {} if details.resource is None else {"resource": details.resource}


def _pack_precondition(error: errors.PreconditionError) -> list[Message]:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason, subject=_short(error.subject), description=_text(error)
    )
    return [error_details_pb2.PreconditionFailure(violations=[violation])]


def _unpack_precondition(details: StatusDetails) -> dict[str, Any]:
    return {} if details.subject is None else {"subject": details.subject}


def _pack_retry(error: errors.TransientError) -> list[Message]:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
    return [retry]


def _unpack_retry(details: StatusDetails) -> dict[str, Any]:
    return {} if details.retry_after_s is None else {"retry_after_s": details.retry_after_s}


_ROWS: Mapping[Details, DetailsCodec] = {
    Details.BAD_REQUEST: DetailsCodec(_pack_field, _unpack_field),
    Details.RESOURCE_INFO: DetailsCodec(_pack_resource, _unpack_resource),
    Details.PRECONDITION_FAILURE: DetailsCodec(_pack_precondition, _unpack_precondition),
    Details.RETRY_INFO: DetailsCodec(_pack_retry, _unpack_retry),
    Details.NONE: DetailsCodec(lambda error: [], lambda details: {}),
}

TABLE: Mapping[type[errors.DubstageError], DetailsCodec] = {leaf: _ROWS[KINDS[leaf.reason].details] for leaf in errors.leaves()} | {
    errors.UnexpectedError: DetailsCodec(lambda error: [], lambda details: {"error_id": details.error_id})
}

_LEAF_OF_REASON = {leaf.reason: leaf for leaf in TABLE}


def opaque(error: BaseException) -> errors.UnexpectedError:
    """Return the error that a caller gets for an exception outside the tree: an id, by which the stage's log has the cause."""
    error_id = uuid.uuid4().hex
    unexpected = errors.UnexpectedError(f"unexpected error; the stage's log has it as {error_id}", error_id=error_id)
    unexpected.__cause__ = error
    return unexpected


def domain_error(error: Exception) -> errors.DubstageError:
    """Return the tree's error for any exception: the exception itself, one inside a task group, or an opaque `UnexpectedError`."""
    inner: Exception | None = error
    if isinstance(error, ExceptionGroup):
        inner = error.subgroup(errors.DubstageError)
        while isinstance(inner, ExceptionGroup):
            inner = inner.exceptions[0]
    return inner if isinstance(inner, errors.DubstageError) else opaque(error)


def log_fields(error: errors.DubstageError) -> dict[str, Any]:
    """Return the log fields of an error: `reason`, `message`, and for an UnexpectedError `error_id` and `exc_info` (the traceback).

    Code that gives an error to a caller, in a status or in an operation, logs these fields in one line, at level error for
    an UnexpectedError. The caller gets the `error_id`, and this line leads from the `error_id` to the cause.
    """
    fields: dict[str, Any] = {"reason": error.reason, "message": _text(error)}
    if isinstance(error, errors.UnexpectedError):
        fields |= {"error_id": error.error_id, "exc_info": error.__cause__ or error}
    return fields


def to_status(error: errors.DubstageError, *, stage: str) -> status_pb2.Status:
    """Return an error as google.rpc.Status: ErrorInfo (reason, domain, stage) first, then the details of its row.

    Raises:
        KeyError: the class is not in the table. A test makes sure that every class is.
    """
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    # An error that crossed several stages keeps the name of the first stage.
    info.metadata["stage"] = error.stage or stage
    if isinstance(error, errors.UnexpectedError):
        info.metadata["error_id"] = error.error_id
    status = status_pb2.Status(code=grpc.StatusCode[error.code].value[0], message=_text(error))
    for detail in [info, *TABLE[_LEAF_OF_REASON[error.reason]].pack(error)]:
        status.details.add().Pack(detail)
    return status


def from_status(status: status_pb2.Status) -> errors.DubstageError | None:
    """Return the error of a status that `to_status` wrote, and None for any other status."""
    details = read_details(status)
    leaf = _LEAF_OF_REASON.get(details.reason) if details.domain == DOMAIN else None
    if leaf is None:
        return None
    error = leaf(status.message, **TABLE[leaf].unpack(details))
    error.stage = details.stage
    return error


def from_rpc_error(error: grpc.aio.AioRpcError, *, peer: str) -> errors.DubstageError:
    """Return the tree's error for a failed call.

    Args:
        error: the exception of grpc.aio.
        peer: name of the called server, such as `render at localhost:50055`, for the text of errors that gRPC itself makes.
    """
    status = status_of(error)
    sent = from_status(status) if status is not None else None
    if sent is not None:
        return sent
    text = error.details() or error.code().name
    if is_too_large(error):
        return errors.MessageTooLargeError(f"{peer}: {text}; DUBSTAGE_MAX_MESSAGE_BYTES sets the limit on both sides")
    if error.code() is grpc.StatusCode.INTERNAL and text == _BROKEN_CALL:
        return errors.BackendUnavailableError(f"{peer}: the connection broke off")
    leaf = _LEAF_OF_REASON[REASON_OF_CODE.get(error.code().name, errors.UnexpectedError.reason)]
    return leaf(f"{peer}: {text}")


def _text(error: errors.DubstageError) -> str:
    return _cut(error.message, _MAX_TEXT_BYTES)


def _short(name: str) -> str:
    return _cut(name, _MAX_NAME_BYTES)


def _cut(text: str, num_bytes: int) -> str:
    data = text.encode(errors="replace")
    ellipsis = "…"
    if len(data) <= num_bytes:
        return data.decode()
    return data[: num_bytes - len(ellipsis.encode())].decode(errors="ignore") + ellipsis
