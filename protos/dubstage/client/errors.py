"""The one error of a failed call."""

from __future__ import annotations

from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

_DETAILS_KEY = "grpc-status-details-bin"
_RETRYABLE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
# This is gRPC's text for a message above the limit of the connection, or far above the limit of the server.
_TOO_LARGE = "message larger than max"
# These are the texts of gRPC's load balancing, name resolver and transport for a call that found no connection.
_NO_CONNECTION = ("connections to all backends failing", "failed to connect to all addresses", "DNS resolution failed")


class DubstageCallError(Exception):
    """A call failed.

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
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.violations: tuple[tuple[str, str], ...] = ()
        self.violation_reasons: tuple[str, ...] = ()
        self.stage = stage
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.unsent = unsent


def from_rpc_error(error: grpc.RpcError, peer: str) -> DubstageCallError:
    """Return the error of a failed call."""
    call = cast(grpc.Call, error)
    code = call.code().name
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    details = call.details() or code
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details:
        text = f"{peer}: {details}; max_message_bytes of `connect` and DUBSTAGE_MAX_MESSAGE_BYTES of the server are the limits"
        return DubstageCallError(text, code=code, reason="MESSAGE_TOO_LARGE")
    unsent = code == "UNAVAILABLE" and any(words in details for words in _NO_CONNECTION)
    return DubstageCallError(f"{peer}: {details}", code=code, retryable=code in _RETRYABLE, unsent=unsent)


def from_status(status: status_pb2.Status) -> DubstageCallError:
    """Return the error of a google.rpc.Status: of a call, or of an operation that failed."""
    code = next((item.name for item in grpc.StatusCode if item.value[0] == status.code), "UNKNOWN")
    error = DubstageCallError(status.message, code=code, retryable=code in _RETRYABLE)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            error.reason, error.stage = info.reason, info.metadata.get("stage", "")
        elif detail.Unpack(bad) and bad.field_violations:
            error.field = bad.field_violations[0].field
            error.violations = tuple((violation.field, violation.description) for violation in bad.field_violations)
            error.violation_reasons = tuple(violation.reason for violation in bad.field_violations)
        elif detail.Unpack(retry):
            error.retryable, error.retry_after_s = True, retry.retry_delay.ToMilliseconds() / 1000
    return error
