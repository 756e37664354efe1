"""The base of all errors of dubstage, and the table of the errors of its servers: reason, gRPC status, details, repeatable or not.

Servers write statuses by the table, and every client reads statuses by the table. The module needs neither gRPC nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple


class Error(Exception):
    """Base of all errors of dubstage: of calls to a server (DubstageCallError) and of the suite in this process.

    Attributes:
        message: text for a person.
        code: name of the gRPC status, such as INVALID_ARGUMENT.
        reason: stable identifier of the failure, such as INVALID_REQUEST; empty: gRPC itself failed.
        field: field of the request that cannot be used; empty: no field is to blame.
        violations: all fields that cannot be used, each with what is wrong.
        stage: server that reported the failure; empty: no server did.
        retryable: whether the same call may succeed later.
        retry_after_s: seconds to wait before the same call may succeed.
    """

    code: str = ""
    reason: str = ""
    field: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    stage: str = ""
    retryable: bool = False
    retry_after_s: float = 0.0

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """Text for a person."""
        return str(self.args[0])


class Details(Enum):
    """Details that a status has beside its google.rpc.ErrorInfo: a message of google.rpc."""

    NONE = ""
    BAD_REQUEST = "BadRequest"
    RESOURCE_INFO = "ResourceInfo"
    PRECONDITION_FAILURE = "PreconditionFailure"
    RETRY_INFO = "RetryInfo"


class ErrorKind(NamedTuple):
    """One kind of error on the wire.

    Attributes:
        code: name of the gRPC status.
        details: details of the status.
        retryable: whether the same call may succeed later without a change by a person.
    """

    code: str
    details: Details
    retryable: bool = False


DOMAIN: Final = "dubstage"
"""`domain` of the ErrorInfo of every error in the table."""

KINDS: Final[Mapping[str, ErrorKind]] = {
    "INVALID_REQUEST": ErrorKind("INVALID_ARGUMENT", Details.BAD_REQUEST),
    "REQUEST_ID_REUSED": ErrorKind("ALREADY_EXISTS", Details.BAD_REQUEST),
    "MEDIA_UNSUPPORTED": ErrorKind("INVALID_ARGUMENT", Details.BAD_REQUEST),
    "MESSAGE_TOO_LARGE": ErrorKind("RESOURCE_EXHAUSTED", Details.BAD_REQUEST),
    "CALL_TOO_LARGE": ErrorKind("RESOURCE_EXHAUSTED", Details.BAD_REQUEST),
    "UNAUTHENTICATED": ErrorKind("UNAUTHENTICATED", Details.BAD_REQUEST),
    "ARTEFACT_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "ARTEFACT_CORRUPT": ErrorKind("DATA_LOSS", Details.RESOURCE_INFO),
    "MODEL_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "ACTOR_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "OPERATION_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "BATCH_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "FILE_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "WEBHOOK_NOT_FOUND": ErrorKind("NOT_FOUND", Details.RESOURCE_INFO),
    "ACTOR_NOT_READY": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "NO_USABLE_FOOTAGE": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "FILE_IN_USE": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "STORAGE_FULL": ErrorKind("RESOURCE_EXHAUSTED", Details.PRECONDITION_FAILURE),
    "STORAGE_REFUSED": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CLUSTER_REFUSED": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_MISSING": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_UNSIGNED": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_SIGNER_UNKNOWN": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_ALTERED": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_WITHDRAWN": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_NOT_YET_VALID": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_EXPIRED": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_OUT_OF_SCOPE": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_WITHOUT_SUBJECT": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_OTHER_SUBJECT": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "CONSENT_FACE_UNCERTAIN": ErrorKind("FAILED_PRECONDITION", Details.PRECONDITION_FAILURE),
    "OVERLOADED": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "ACCELERATOR_OUT_OF_MEMORY": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "MODEL_NOT_READY": ErrorKind("UNAVAILABLE", Details.RETRY_INFO, retryable=True),
    "BACKEND_UNAVAILABLE": ErrorKind("UNAVAILABLE", Details.RETRY_INFO, retryable=True),
    "TENANT_CONCURRENT_DUBS": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "TENANT_LIVE_STREAMS": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "TENANT_FRAMES_PER_MINUTE": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "TENANT_STORAGE_BYTES": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "TENANT_UPLOAD_BYTES": ErrorKind("RESOURCE_EXHAUSTED", Details.RETRY_INFO, retryable=True),
    "STAGE_DEADLINE_EXCEEDED": ErrorKind("DEADLINE_EXCEEDED", Details.NONE, retryable=True),
    "CANCELLED": ErrorKind("CANCELLED", Details.NONE),
    "CONTRACT_BROKEN": ErrorKind("INTERNAL", Details.NONE),
    "UNEXPECTED": ErrorKind("INTERNAL", Details.NONE),
}
"""By the `reason` of the ErrorInfo."""

REASON_OF_CODE: Final[Mapping[str, str]] = {
    "INVALID_ARGUMENT": "INVALID_REQUEST",
    "OUT_OF_RANGE": "INVALID_REQUEST",
    "NOT_FOUND": "MODEL_NOT_FOUND",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED": "OVERLOADED",
    "UNAVAILABLE": "BACKEND_UNAVAILABLE",
    "DEADLINE_EXCEEDED": "STAGE_DEADLINE_EXCEEDED",
    # The caller's own cancellation is asyncio.CancelledError. CANCELLED comes from a server that ended the call at its shutdown.
    "CANCELLED": "BACKEND_UNAVAILABLE",
    "UNIMPLEMENTED": "CONTRACT_BROKEN",
    "DATA_LOSS": "CONTRACT_BROKEN",
}
"""Reason for a status that no server of dubstage wrote: gRPC itself, a proxy or a load balancer did. Other codes: UNEXPECTED."""

RETRYABLE_CODES: Final = frozenset(
    kind.code for kind in KINDS.values() if all(other.retryable for other in KINDS.values() if other.code == kind.code)
)
"""Codes whose errors all may be repeated."""
