"""The one table between the error tree (errors.py) and google.rpc.Status, in both directions.

| leaf | gRPC code | details beside ErrorInfo | retry | Job exit |
|---|---|---|---|---|
| InvalidRequest, MediaUnsupported | INVALID_ARGUMENT | BadRequest | no | 10 |
| MessageTooLarge, CallTooLarge | RESOURCE_EXHAUSTED | BadRequest | no | 10 |
| Unauthenticated | UNAUTHENTICATED | BadRequest | no | 10 |
| ArtefactNotFound, ModelNotFound, OperationNotFound, BatchNotFound | NOT_FOUND | ResourceInfo | no | 10 |
| ArtefactCorrupt | DATA_LOSS | ResourceInfo | no | 10 |
| ConsentMissing, ConsentUnsigned, ConsentSignerUnknown, ConsentAltered | FAILED_PRECONDITION | PreconditionFailure | no | 11 |
| ConsentWithdrawn, ConsentNotYetValid, ConsentExpired, ConsentOutOfScope | FAILED_PRECONDITION | PreconditionFailure | no | 11 |
| ConsentWithoutSubject, ConsentOtherSubject, ConsentFaceUncertain | FAILED_PRECONDITION | PreconditionFailure | no | 11 |
| ActorNotReady, NoUsableFootage | FAILED_PRECONDITION | PreconditionFailure | no | 11 |
| StorageRefused, ClusterRefused | FAILED_PRECONDITION | PreconditionFailure | no | 11 |
| StorageFull | RESOURCE_EXHAUSTED | PreconditionFailure | no | 11 |
| Overloaded, AcceleratorOutOfMemory | RESOURCE_EXHAUSTED | RetryInfo | yes | 20 |
| TenantDubsReached, TenantStreamsReached, TenantFramesReached, TenantStorageReached | RESOURCE_EXHAUSTED | RetryInfo | yes | 20 |
| ModelNotReady, BackendUnavailable | UNAVAILABLE | RetryInfo | yes | 20 |
| StageDeadlineExceeded | DEADLINE_EXCEEDED | | yes | 20 |
| Cancelled | CANCELLED | | no | 130 |
| ContractBroken | INTERNAL | | no | 12 |
| Unexpected, and any other exception | INTERNAL, opaque text, error id | | no | 12 |
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from services.common import errors

DOMAIN = "dubstage"
# A status travels in HTTP/2 trailers, and gRPC refuses trailers above about 8 KiB. The trailers hold the text three times, once
# with three characters per byte.
_MAX_TEXT_BYTES = 1000
_MAX_NAME_BYTES = 300
_MAX_VIOLATIONS_BYTES = 2400
# Text of grpc.aio for a call whose peer went away during a write.
_BROKEN_CALL = "Internal error from Core"


@dataclass(frozen=True, slots=True)
class Row:
    """Conversion of one kind of error: `pack` makes the details, `unpack` reads constructor arguments back from them."""

    pack: Callable[[Any], list[Message]]
    unpack: Callable[[status_pb2.Status, error_details_pb2.ErrorInfo], dict[str, Any]]


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


def _unpack_field(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> dict[str, Any]:
    bad = error_details_pb2.BadRequest()
    if not _find(status, bad) or not bad.field_violations:
        return {}
    several = [(violation.field, violation.description) for violation in bad.field_violations]
    reasons = [violation.reason for violation in bad.field_violations]
    return {
        "field": several[0][0],
        "violations": several if len(several) > 1 else (),
        "reasons": reasons if any(reasons) else (),
    }


def _pack_resource(error: errors.ResourceError) -> list[Message]:
    kinds = {errors.ModelNotFound: "model", errors.OperationNotFound: "operation", errors.BatchNotFound: "batch"}
    kind = kinds.get(type(error), "artefact")
    return [error_details_pb2.ResourceInfo(resource_type=kind, resource_name=_short(error.resource))]


def _unpack_resource(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> dict[str, Any]:
    resource = error_details_pb2.ResourceInfo()
    return {"resource": resource.resource_name} if _find(status, resource) else {}


def _pack_precondition(error: errors.PreconditionError) -> list[Message]:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason, subject=_short(error.subject), description=_text(error)
    )
    return [error_details_pb2.PreconditionFailure(violations=[violation])]


def _unpack_precondition(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> dict[str, Any]:
    failure = error_details_pb2.PreconditionFailure()
    return {"subject": failure.violations[0].subject} if _find(status, failure) and failure.violations else {}


def _pack_retry(error: errors.TransientError) -> list[Message]:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
    return [retry]


def _unpack_retry(status: status_pb2.Status, info: error_details_pb2.ErrorInfo) -> dict[str, Any]:
    retry = error_details_pb2.RetryInfo()
    return {"retry_after_s": retry.retry_delay.ToMilliseconds() / 1000} if _find(status, retry) else {}


_FIELD = Row(_pack_field, _unpack_field)
_RESOURCE = Row(_pack_resource, _unpack_resource)
_PRECONDITION = Row(_pack_precondition, _unpack_precondition)
_RETRY = Row(_pack_retry, _unpack_retry)
_PLAIN = Row(lambda error: [], lambda status, info: {})
_UNEXPECTED = Row(lambda error: [], lambda status, info: {"error_id": info.metadata.get("error_id", "")})

TABLE: Mapping[type[errors.DubstageError], Row] = {
    errors.InvalidRequest: _FIELD,
    errors.MediaUnsupported: _FIELD,
    errors.MessageTooLarge: _FIELD,
    errors.CallTooLarge: _FIELD,
    errors.Unauthenticated: _FIELD,
    errors.ArtefactNotFound: _RESOURCE,
    errors.ArtefactCorrupt: _RESOURCE,
    errors.ModelNotFound: _RESOURCE,
    errors.OperationNotFound: _RESOURCE,
    errors.BatchNotFound: _RESOURCE,
    errors.ConsentMissing: _PRECONDITION,
    errors.ConsentUnsigned: _PRECONDITION,
    errors.ConsentSignerUnknown: _PRECONDITION,
    errors.ConsentAltered: _PRECONDITION,
    errors.ConsentWithdrawn: _PRECONDITION,
    errors.ConsentNotYetValid: _PRECONDITION,
    errors.ConsentExpired: _PRECONDITION,
    errors.ConsentOutOfScope: _PRECONDITION,
    errors.ConsentWithoutSubject: _PRECONDITION,
    errors.ConsentOtherSubject: _PRECONDITION,
    errors.ConsentFaceUncertain: _PRECONDITION,
    errors.ActorNotReady: _PRECONDITION,
    errors.NoUsableFootage: _PRECONDITION,
    errors.StorageFull: _PRECONDITION,
    errors.StorageRefused: _PRECONDITION,
    errors.ClusterRefused: _PRECONDITION,
    errors.Overloaded: _RETRY,
    errors.TenantDubsReached: _RETRY,
    errors.TenantStreamsReached: _RETRY,
    errors.TenantFramesReached: _RETRY,
    errors.TenantStorageReached: _RETRY,
    errors.AcceleratorOutOfMemory: _RETRY,
    errors.ModelNotReady: _RETRY,
    errors.BackendUnavailable: _RETRY,
    errors.StageDeadlineExceeded: _PLAIN,
    errors.Cancelled: _PLAIN,
    errors.ContractBroken: _PLAIN,
    errors.Unexpected: _UNEXPECTED,
}

_LEAF_OF_REASON = {leaf.reason: leaf for leaf in TABLE}

# For a status that this table did not write: gRPC itself, a proxy or a load balancer did.
_LEAF_OF_CODE: Mapping[grpc.StatusCode, type[errors.DubstageError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.ModelNotFound,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAVAILABLE: errors.BackendUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.StageDeadlineExceeded,
    # The caller's own cancellation is asyncio.CancelledError. CANCELLED comes from a server that ended the call at its shutdown.
    grpc.StatusCode.CANCELLED: errors.BackendUnavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.ContractBroken,
    grpc.StatusCode.DATA_LOSS: errors.ContractBroken,
}


def opaque(error: BaseException) -> errors.Unexpected:
    """Return the error that a caller gets for an exception outside the tree: an id, by which the stage's log has the cause."""
    error_id = uuid.uuid4().hex
    unexpected = errors.Unexpected(f"unexpected error; the stage's log has it as {error_id}", error_id=error_id)
    unexpected.__cause__ = error
    return unexpected


def domain_error(error: Exception) -> errors.DubstageError:
    """Return the tree's error for any exception: the exception itself, one inside a task group, or an opaque `Unexpected`."""
    found: Exception | None = error
    if isinstance(error, ExceptionGroup):
        found = error.subgroup(errors.DubstageError)
        while isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
    return found if isinstance(found, errors.DubstageError) else opaque(error)


def log_fields(error: errors.DubstageError) -> dict[str, Any]:
    """Return the log fields of an error: `reason`, `message`, and for an Unexpected `error_id` and `exc_info` (the traceback).

    Code that gives an error to a caller, in a status or in an operation, logs these fields in one line, at level error for
    an Unexpected. The caller gets the `error_id`, and this line leads from the `error_id` to the cause.
    """
    fields: dict[str, Any] = {"reason": error.reason, "message": _text(error)}
    if isinstance(error, errors.Unexpected):
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
    if isinstance(error, errors.Unexpected):
        info.metadata["error_id"] = error.error_id
    status = status_pb2.Status(code=grpc.StatusCode[error.code].value[0], message=_text(error))
    for detail in [info, *TABLE[type(error)].pack(error)]:
        status.details.add().Pack(detail)
    return status


def from_status(status: status_pb2.Status) -> errors.DubstageError | None:
    """Return the error of a status that `to_status` wrote, and None for any other status."""
    info = error_details_pb2.ErrorInfo()
    if not _find(status, info) or info.domain != DOMAIN or info.reason not in _LEAF_OF_REASON:
        return None
    leaf = _LEAF_OF_REASON[info.reason]
    error = leaf(status.message, **TABLE[leaf].unpack(status, info))
    error.stage = info.metadata.get("stage", "")
    return error


def from_rpc_error(error: grpc.aio.AioRpcError, *, peer: str) -> errors.DubstageError:
    """Return the tree's error for a failed call.

    Args:
        error: the exception of grpc.aio.
        peer: name of the called server, such as `render at localhost:50055`, for the text of errors that gRPC itself makes.
    """
    try:
        # The synchronous reader fits: a caught error holds plain values. A live call would hold awaitables.
        status = rpc_status.from_call(cast(grpc.Call, error))
    except (ValueError, DecodeError):
        status = None
    known = from_status(status) if status is not None else None
    if known is not None:
        return known
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return errors.MessageTooLarge(f"{peer}: {text}; DUBSTAGE_MAX_MESSAGE_BYTES sets the limit on both sides")
    if error.code() is grpc.StatusCode.INTERNAL and text == _BROKEN_CALL:
        return errors.BackendUnavailable(f"{peer}: the connection broke off")
    leaf = _LEAF_OF_CODE.get(error.code(), errors.Unexpected)
    return leaf(f"{peer}: {text}")


def _find(status: status_pb2.Status, detail: Message) -> bool:
    """Fill `detail` from the first detail of its kind. Return whether there was one."""
    return any(packed.Is(detail.DESCRIPTOR) and packed.Unpack(detail) for packed in status.details)


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
