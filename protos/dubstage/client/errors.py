"""The one error of a failed call, and the reading of the statuses that servers send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from dubstage.error_kinds import RETRYABLE_CODES, Error

_DETAILS_KEY = "grpc-status-details-bin"
# This is gRPC's text for a message above the limit of the connection, or far above the limit of the server.
_TOO_LARGE = "message larger than max"
# These are the texts of gRPC's load balancing, name resolver and transport for a call that found no connection.
_NO_CONNECTION = ("connections to all backends failing", "failed to connect to all addresses", "DNS resolution failed")


class DubstageCallError(Error):
    """A call to a server failed.

    Attributes:
        message: text for a person.
        code: name of the gRPC status, such as INVALID_ARGUMENT.
        reason: stable identifier of the failure, such as INVALID_REQUEST or MESSAGE_TOO_LARGE; empty for other failures of gRPC.
        field: field of the request that cannot be used; empty if no field is to blame.
        violations: all fields that cannot be used, each with what is wrong; of very many, the first.
        violation_reasons: reason of each violation, in the same order, such as CONSENT_WITHDRAWN; empty: that of the call.
        stage: server that reported the failure; empty if gRPC itself ended the call.
        retryable: whether the same call may succeed later.
        retry_after_s: seconds to wait before the same call may succeed.
        unsent: no connection came about, so the server has seen nothing of the call.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        field: str = "",
        stage: str = "",
        retryable: bool = False,
        retry_after_s: float = 0.0,
        unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field = field
        self.violations = ()
        self.violation_reasons: tuple[str, ...] = ()
        self.stage = stage
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """Details of a google.rpc.Status.

    Attributes:
        reason, domain: of the ErrorInfo; empty if the status has none.
        stage: name of the server that reported the error.
        error_id: identifier in that server's log; empty for errors whose text says all.
        violations: of the BadRequest: field, what is wrong, and reason of each.
        resource: name in the ResourceInfo; None if the status has none.
        subject: of the PreconditionFailure; None if the status has none.
        retry_after_s: of the RetryInfo, seconds; None if the status has none.
    """

    reason: str = ""
    domain: str = ""
    stage: str = ""
    error_id: str = ""
    violations: tuple[tuple[str, str, str], ...] = ()
    resource: str | None = None
    subject: str | None = None
    retry_after_s: float | None = None


def read_details(status: status_pb2.Status) -> StatusDetails:
    """Return the details of a status: of each kind the first."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    resource, failure = error_details_pb2.ResourceInfo(), error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    present = {type(kind): _find(status, kind) for kind in (info, bad, resource, failure, retry)}
    return StatusDetails(
        reason=info.reason,
        domain=info.domain,
        stage=info.metadata.get("stage", ""),
        error_id=info.metadata.get("error_id", ""),
        violations=tuple((violation.field, violation.description, violation.reason) for violation in bad.field_violations),
        resource=resource.resource_name if present[type(resource)] else None,
        subject=failure.violations[0].subject if failure.violations else None,
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000 if present[type(retry)] else None,
    )


def status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    """Return the google.rpc.Status that the server sent with a failed call; None if there is none, or it cannot be read."""
    # The synchronous interface fits errors of grpc.aio too: a caught error holds plain values.
    for key, value in cast(grpc.Call, error).trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return None


def is_too_large(error: grpc.RpcError) -> bool:
    """Return whether gRPC refused a message for its size, at either end."""
    call = cast(grpc.Call, error)
    return call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in (call.details() or "")


def from_rpc_error(error: grpc.RpcError, peer: str) -> DubstageCallError:
    """Return the error of a failed call."""
    status = status_of(error)
    if status is not None:
        return from_status(status)
    call = cast(grpc.Call, error)
    code = call.code().name
    details = call.details() or code
    if is_too_large(error):
        text = f"{peer}: {details}; max_message_bytes of `connect` and DUBSTAGE_MAX_MESSAGE_BYTES of the server are the limits"
        return DubstageCallError(text, code=code, reason="MESSAGE_TOO_LARGE")
    unsent = code == "UNAVAILABLE" and any(words in details for words in _NO_CONNECTION)
    return DubstageCallError(f"{peer}: {details}", code=code, retryable=code in RETRYABLE_CODES, unsent=unsent)


def from_status(status: status_pb2.Status) -> DubstageCallError:
    """Return the error of a google.rpc.Status: of a call, or of an operation that failed."""
    code = next((item.name for item in grpc.StatusCode if item.value[0] == status.code), "UNKNOWN")
    details = read_details(status)
    error = DubstageCallError(status.message, code=code, reason=details.reason, stage=details.stage)
    error.retryable = code in RETRYABLE_CODES or details.retry_after_s is not None
    error.retry_after_s = details.retry_after_s or 0.0
    if details.violations:
        error.field = details.violations[0][0]
        error.violations = tuple((field, description) for field, description, _ in details.violations)
        error.violation_reasons = tuple(reason for _, _, reason in details.violations)
    return error


def _find(status: status_pb2.Status, detail: Message) -> bool:
    """Fill `detail` from the first detail of its kind. Return whether there was one."""
    return any(packed.Is(detail.DESCRIPTOR) and packed.Unpack(detail) for packed in status.details)
